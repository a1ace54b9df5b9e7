#include "common/base/urgent.h"

#include <sys/resource.h>

enum { NICE = -10 };

bool urgent_this_thread(void) {
    return setpriority(PRIO_PROCESS, 0, NICE) == 0; // of the thread alone, on Linux
}
