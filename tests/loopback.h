// SPDX-License-Identifier: Apache-2.0
// Tests with a server talk over 127.0.0.1. Where the tests run in a network namespace without a working interface, even that is down: a
// namespace of our own is entered then, and its loopback switched on. Call it first in main, before any thread exists.
#ifndef SOMA_TESTS_LOOPBACK_H
#define SOMA_TESTS_LOOPBACK_H

#include <net/if.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static inline bool loopback_is_up(bool switch_on) {
    struct ifreq request = {0};
    strcpy(request.ifr_name, "lo");
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    bool up = s >= 0 && !ioctl(s, SIOCGIFFLAGS, &request) && (request.ifr_flags & IFF_UP);
    if (!up && switch_on) {
        request.ifr_flags |= IFF_UP;
        up = s >= 0 && !ioctl(s, SIOCSIFFLAGS, &request);
    }
    if (s >= 0) close(s);
    return up;
}

// false: there is no loopback to be had, and the tests that need one are to be skipped.
static inline bool loopback_ready(void) {
    if (loopback_is_up(false)) return true;
    if (unshare(CLONE_NEWNET) && unshare(CLONE_NEWUSER | CLONE_NEWNET)) return false;
    return loopback_is_up(true);
}

#endif
