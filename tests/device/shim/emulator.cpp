#include "tests/device/shim/emulator.h"

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

void emulator_set_streams_deferred(bool deferred) {
    simt::set_streams_deferred(deferred);
}

int emulator_races(void) {
    return simt::race_count();
}

static bool configure_one(const std::string &word) {
    if (word == "order=fifo") {
        emulator_set_order(EMULATOR_ORDER_FIFO, 0);
    } else if (word == "order=reverse") {
        emulator_set_order(EMULATOR_ORDER_REVERSE, 0);
    } else if (word.rfind("order=warp:", 0) == 0) {
        const char *digits = word.c_str() + strlen("order=warp:");
        char *end;
        unsigned long long seed = strtoull(digits, &end, 10);
        if (end == digits || *end) return false;
        emulator_set_order(EMULATOR_ORDER_WARP, seed);
    } else if (word == "copies=late" || word == "copies=early") {
        emulator_set_copies_late(word == "copies=late");
    } else if (word == "streams=deferred" || word == "streams=immediate") {
        emulator_set_streams_deferred(word == "streams=deferred");
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
