// urgent: threads that others wait for and that hardly compute: signs of life, the messages between
// programs, the core. On a machine whose cores are full they go first, where the system lets them.
#ifndef OCTANT_BASE_URGENT_H
#define OCTANT_BASE_URGENT_H

#include <stdbool.h>

// Puts the calling thread before ordinary ones; threads that it starts inherit it. False where that
// is not allowed (it takes CAP_SYS_NICE, or RLIMIT_NICE: systemd's LimitNICE=-10); nothing is lost
// then but time on a full machine.
bool urgent_this_thread(void);

#endif
