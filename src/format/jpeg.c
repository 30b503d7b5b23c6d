// SPDX-License-Identifier: Apache-2.0
// libjpeg, whose errors leave through longjmp: it is kept within `run`, which allocates nothing itself. libjpeg goes on behind damage and
// fills what is missing with grey; a policy must not learn from that, so its warnings about lost data are errors here.
#include "format/image.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jerror.h>
#include <jpeglib.h>

enum { SIDE_MAX = 16384 };

typedef struct failing {
    struct jpeg_error_mgr manager; // first: libjpeg hands it back
    jmp_buf leave;
    char text[JMSG_LENGTH_MAX];
} failing;

static void leave(j_common_ptr jpeg) {
    failing *f = (failing *)jpeg->err;
    f->manager.format_message(jpeg, f->text);
    longjmp(f->leave, 1);
}

static void judge(j_common_ptr jpeg, int level) {
    int code = jpeg->err->msg_code;
    if (level < 0 && (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER || code == JWRN_HUFF_BAD_CODE || code == JWRN_MUST_RESYNC))
        leave(jpeg);
}

static void print_nothing(j_common_ptr jpeg) { (void)jpeg; }

// Reads the header, and the pixels where `rgb` is there; false: f->text says why not.
static bool run(struct jpeg_decompress_struct *jpeg, failing *f, uint8_t *rgb, int width, int height, const void *bytes, size_t size) {
    if (setjmp(f->leave)) return false;
    jpeg_create_decompress(jpeg);
    jpeg_mem_src(jpeg, bytes, (unsigned long)size);
    jpeg_read_header(jpeg, TRUE);
    if (!rgb || (int)jpeg->image_width != width || (int)jpeg->image_height != height) return true;
    jpeg->out_color_space = JCS_RGB;
    jpeg->dct_method = JDCT_ISLOW;
    jpeg_start_decompress(jpeg);
    while (jpeg->output_scanline < jpeg->output_height) {
        JSAMPROW row = rgb + (size_t)jpeg->output_scanline * (size_t)width * 3;
        jpeg_read_scanlines(jpeg, &row, 1);
    }
    return true;
}

static soma_status read_jpeg(uint8_t *rgb, int *width, int *height, const void *bytes, size_t size, const char *where, soma_error *err) {
    struct jpeg_decompress_struct jpeg = {0};
    failing f = {0};
    jpeg.err = jpeg_std_error(&f.manager);
    f.manager.error_exit = leave;
    f.manager.emit_message = judge;
    f.manager.output_message = print_nothing;
    bool ok = run(&jpeg, &f, rgb, *width, *height, bytes, size);
    int is_width = (int)jpeg.image_width, is_height = (int)jpeg.image_height;
    jpeg_destroy_decompress(&jpeg);
    if (!ok) return soma__fail(err, SOMA_BAD_INPUT, "%s: not a readable JPEG picture: %s", where, f.text);
    if (is_width > SIDE_MAX || is_height > SIDE_MAX)
        return soma__fail(err, SOMA_UNSUPPORTED, "%s: a picture of %d x %d", where, is_width, is_height);
    if (rgb && (is_width != *width || is_height != *height))
        return soma__fail(err, SOMA_BAD_INPUT, "%s: the picture is %d x %d, wanted are %d x %d", where, is_width, is_height, *width,
                          *height);
    *width = is_width;
    *height = is_height;
    return SOMA_OK;
}

soma_status soma__jpeg_size(int *width, int *height, const void *bytes, size_t size, const char *where, soma_error *err) {
    *width = *height = 0;
    return read_jpeg(NULL, width, height, bytes, size, where, err);
}

soma_status soma__jpeg_decode(uint8_t *rgb, int width, int height, const void *bytes, size_t size, const char *where, soma_error *err) {
    return read_jpeg(rgb, &width, &height, bytes, size, where, err);
}
