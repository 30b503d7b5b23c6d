// SPDX-License-Identifier: Apache-2.0
// EGL's surfaceless platform first, OSMesa where that is absent: the order is fixed, not raced, because the two round pixels differently
// and equal seeds must give equal pictures. Measured at 96 x 96 (README.md).
#include "env/gl.h"

#include <pthread.h>

#ifdef SOMA_EGL
#include <EGL/egl.h>
#include <EGL/eglext.h>
#endif
#ifdef SOMA_OSMESA
#include <GL/osmesa.h>
#endif

struct soma_gl {
#ifdef SOMA_EGL
    EGLContext egl;
#endif
#ifdef SOMA_OSMESA
    OSMesaContext osmesa;
    uint32_t pixel; // OSMesa insists on a window buffer; ours has one pixel, drawing goes to a frame buffer object
#endif
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static enum { NONE, EGL_SURFACELESS, OSMESA } library;

#ifdef SOMA_EGL
static EGLDisplay display; // one per process, never terminated: other contexts may live in it

static bool egl_begin(void) {
    display = eglGetPlatformDisplay(EGL_PLATFORM_SURFACELESS_MESA, EGL_DEFAULT_DISPLAY, NULL);
    return display != EGL_NO_DISPLAY && eglInitialize(display, NULL, NULL);
}

static EGLContext egl_context(void) {
    static const EGLint want[] = {EGL_RENDERABLE_TYPE, EGL_OPENGL_BIT, EGL_RED_SIZE, 8, EGL_DEPTH_SIZE, 24, EGL_NONE};
    EGLConfig config;
    EGLint n = 0;
    if (!eglBindAPI(EGL_OPENGL_API) || !eglChooseConfig(display, want, &config, 1, &n)) return EGL_NO_CONTEXT;
    return eglCreateContext(display, n ? config : NULL, EGL_NO_CONTEXT, NULL);
}
#endif

static void choose(void) {
#ifdef SOMA_EGL
    if (egl_begin()) {
        EGLContext probe = egl_context();
        if (probe != EGL_NO_CONTEXT) {
            eglDestroyContext(display, probe);
            library = EGL_SURFACELESS;
            return;
        }
    }
#endif
#ifdef SOMA_OSMESA
    library = OSMESA;
#endif
}

const char *soma__gl_name(void) { return library == EGL_SURFACELESS ? "EGL" : library == OSMESA ? "OSMesa" : "none"; }

soma_status soma__gl_open(soma_gl **out, soma_error *err) {
    *out = NULL;
    pthread_once(&once, choose);
    soma_gl *gl = soma__calloc(1, sizeof *gl);
    if (!gl) return soma__no_memory(err, "the drawing context");
    bool made = false;
#ifdef SOMA_EGL
    if (library == EGL_SURFACELESS) made = (gl->egl = egl_context()) != EGL_NO_CONTEXT;
#endif
#ifdef SOMA_OSMESA
    if (library == OSMESA) made = (gl->osmesa = OSMesaCreateContextExt(OSMESA_RGBA, 24, 8, 0, NULL)) != NULL;
#endif
    if (!made) {
        soma__free(gl);
        return soma__fail(err, SOMA_UNSUPPORTED, "no OpenGL context without a screen (library: %s): install Mesa's EGL or OSMesa",
                          soma__gl_name());
    }
    *out = gl;
    return SOMA_OK;
}

soma_status soma__gl_enter(soma_gl *gl, soma_error *err) {
    bool entered = false;
#ifdef SOMA_EGL
    if (library == EGL_SURFACELESS) {
        entered = eglBindAPI(EGL_OPENGL_API) && eglMakeCurrent(display, EGL_NO_SURFACE, EGL_NO_SURFACE, gl->egl);
    }
#endif
#ifdef SOMA_OSMESA
    if (library == OSMESA) entered = OSMesaMakeCurrent(gl->osmesa, &gl->pixel, GL_UNSIGNED_BYTE, 1, 1);
#endif
    return entered ? SOMA_OK : soma__fail(err, SOMA_UNSUPPORTED, "the %s context cannot be used on this thread", soma__gl_name());
}

void soma__gl_leave(soma_gl *gl) {
#ifdef SOMA_EGL
    if (library == EGL_SURFACELESS) eglMakeCurrent(display, EGL_NO_SURFACE, EGL_NO_SURFACE, EGL_NO_CONTEXT);
#endif
#ifdef SOMA_OSMESA
    if (library == OSMESA) OSMesaMakeCurrent(NULL, NULL, GL_UNSIGNED_BYTE, 0, 0);
#endif
}

void soma__gl_close(soma_gl *gl) {
    if (!gl) return;
#ifdef SOMA_EGL
    if (library == EGL_SURFACELESS) eglDestroyContext(display, gl->egl);
#endif
#ifdef SOMA_OSMESA
    if (library == OSMESA) OSMesaDestroyContext(gl->osmesa);
#endif
    soma__free(gl);
}
