// SPDX-License-Identifier: Apache-2.0
// Tells systemd how a service is: its protocol is a datagram to the socket that it names in NOTIFY_SOCKET. (The one place where this
// program looks at environment variables: they are systemd's way to call it.)
#ifndef SOMA_CMD_NOTIFY_H
#define SOMA_CMD_NOTIFY_H

#include "base/base.h"

// "READY=1", "STOPPING=1", "WATCHDOG=1". Does nothing, and returns false, where nobody listens.
bool soma__cmd_notify(const char *state);
// Seconds between two signs of life that systemd wants from this process (WatchdogSec); 0: none.
double soma__cmd_watchdog(void);

#endif
