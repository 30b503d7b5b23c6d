// SPDX-License-Identifier: Apache-2.0
// An OpenGL context that draws into memory only. Which library gives it is decided once per process, so that pictures do not vary.
#ifndef SOMA_ENV_GL_H
#define SOMA_ENV_GL_H

#include "base/base.h"

typedef struct soma_gl soma_gl;
soma_status soma__gl_open(soma_gl **gl, soma_error *err);
void soma__gl_close(soma_gl *gl);                         // NULL allowed
soma_status soma__gl_enter(soma_gl *gl, soma_error *err); // makes it current on this thread
void soma__gl_leave(soma_gl *gl);                         // and no longer
const char *soma__gl_name(void);                          // "EGL", "OSMesa" or "none"; after the first open

#endif
