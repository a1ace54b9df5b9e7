#include "coordinator/upstream/address.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

// libcurl resolves "localhost" to 127.0.0.1 and ::1 by itself, whatever the resolver says.
static bool is_this_machine(const char *host) {
    struct in_addr four;
    struct in6_addr six;
    char bare[64] = "";
    size_t size = strlen(host);
    if (host[0] == '[' && size - 2 < sizeof bare) memcpy(bare, host + 1, size - 2);
    if (strcasecmp(host, "localhost") == 0) return true;
    if (inet_pton(AF_INET, host, &four) == 1) return ntohl(four.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, bare, &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six);
}

static status check_parts(const upstream_policy *u, CURLU *url) {
    char *scheme = NULL, *host = NULL, *user = NULL, *fragment = NULL;
    status s = status_ok();
    curl_url_get(url, CURLUPART_SCHEME, &scheme, 0);
    curl_url_get(url, CURLUPART_HOST, &host, 0);
    curl_url_get(url, CURLUPART_USER, &user, 0);
    curl_url_get(url, CURLUPART_FRAGMENT, &fragment, 0);
    bool plain = scheme && strcmp(scheme, "http") == 0;
    if (!host || (!plain && (!scheme || strcmp(scheme, "https") != 0)))
        s = status_error(STATUS_INVALID_ARGUMENT, "begin it with https://");
    else if (user)
        s = status_error(STATUS_INVALID_ARGUMENT,
                         "no user or password belongs there; name a key file");
    else if (fragment)
        s = status_error(STATUS_INVALID_ARGUMENT, "take the part from # on off");
    else if (plain && !u->plain_http && !is_this_machine(host))
        s = status_error(STATUS_INVALID_ARGUMENT,
                         "prompts and the key would go over the wire in clear; use https://, or "
                         "say plain-http: true");
    curl_free(scheme);
    curl_free(host);
    curl_free(user);
    curl_free(fragment);
    return s;
}

status upstream_address_check(const upstream_policy *u) {
    CURLU *url = curl_url();
    if (!url) return status_error(STATUS_RESOURCE_EXHAUSTED, "no memory to check a URL");
    status s = status_ok();
    if (curl_url_set(url, CURLUPART_URL, u->base_url, 0) == CURLUE_OK)
        s = check_parts(u, url);
    else
        s = status_error(STATUS_INVALID_ARGUMENT, "it is not a URL such as https://host/v1");
    curl_url_cleanup(url);
    // The URL itself is not repeated: it may hold a password.
    TRY(status_context(s, "upstream %s: base-url", u->name));
    if (u->ca_file && access(u->ca_file, R_OK))
        return status_error(STATUS_NOT_FOUND, "upstream %s: ca-file %s: %s", u->name, u->ca_file,
                            strerror(errno));
    return status_ok();
}

bool upstream_address_is_plain(const upstream_policy *u) {
    return strncasecmp(u->base_url, "http://", 7) == 0;
}
