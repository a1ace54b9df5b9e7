#include "tests/device/shim/emulator.h"

#include "tests/device/shim/runtime.h"
#include "tests/device/shim/simt.h"

#include <cstdlib>
#include <cstring>
#include <string>

void emulator_set_order(emulator_order order, uint64_t seed) {
    simt::set_order(order, seed);
}

void emulator_set_copies_late(bool late) {
    simt::set_copies_late(late);
}

int emulator_races(void) {
    return simt::race_count();
}

bool emulator_set_memory(size_t bytes) {
    return runtime::memory_configure(bytes);
}

void emulator_set_host_strict(bool strict) {
    runtime::memory_host_strict(strict);
}

static bool number(const char *digits, uint64_t *out) {
    char *end;
    *out = strtoull(digits, &end, 10);
    return end != digits && *end == 0;
}

static bool configure_one(const std::string &word) {
    if (word == "order=fifo") {
        emulator_set_order(EMULATOR_ORDER_FIFO, 0);
    } else if (word == "order=reverse") {
        emulator_set_order(EMULATOR_ORDER_REVERSE, 0);
    } else if (word.rfind("order=warp:", 0) == 0) {
        uint64_t seed;
        if (!number(word.c_str() + strlen("order=warp:"), &seed)) return false;
        emulator_set_order(EMULATOR_ORDER_WARP, seed);
    } else if (word == "copies=late" || word == "copies=early") {
        emulator_set_copies_late(word == "copies=late");
    } else if (word == "streams=immediate") {
        emulator_set_streams(EMULATOR_STREAMS_IMMEDIATE);
    } else if (word == "streams=deferred") {
        emulator_set_streams(EMULATOR_STREAMS_DEFERRED);
    } else if (word == "streams=background") {
        emulator_set_streams(EMULATOR_STREAMS_BACKGROUND);
    } else if (word == "host=strict" || word == "host=open") {
        emulator_set_host_strict(word == "host=strict");
    } else if (word.rfind("devices=", 0) == 0) {
        return emulator_set_devices(word.c_str() + strlen("devices="));
    } else if (word.rfind("memory=", 0) == 0) {
        uint64_t mib;
        return number(word.c_str() + strlen("memory="), &mib) && emulator_set_memory(mib << 20);
    } else {
        return false;
    }
    return true;
}

bool emulator_configure(const char *settings) {
    std::string all = settings;
    for (size_t at = 0; at < all.size();) {
        size_t comma = all.find(',', at);
        if (comma == std::string::npos) comma = all.size();
        if (!configure_one(all.substr(at, comma - at))) return false;
        at = comma + 1;
    }
    return true;
}
