// SPDX-License-Identifier: Apache-2.0
// libpng's simplified interface: it keeps its longjmp to itself and reports errors as text. Sizes are checked against the caller's before
// a byte is decoded, so a small file cannot ask for a huge picture.
#include "format/image.h"

#include <png.h>
#include <string.h>

enum { SIDE_MAX = 16384 };

static soma_status fail_png(soma_error *err, png_image *image, const char *where) {
    soma_status status = soma__fail(err, SOMA_BAD_INPUT, "%s: not a readable PNG picture: %s", where, image->message);
    png_image_free(image);
    return status;
}

static soma_status begin(png_image *image, const void *bytes, size_t size, const char *where, soma_error *err) {
    memset(image, 0, sizeof *image);
    image->version = PNG_IMAGE_VERSION;
    if (!png_image_begin_read_from_memory(image, bytes, size)) return fail_png(err, image, where);
    if (image->width <= SIDE_MAX && image->height <= SIDE_MAX) return SOMA_OK;
    soma_status status = soma__fail(err, SOMA_UNSUPPORTED, "%s: a picture of %u x %u", where, image->width, image->height);
    png_image_free(image);
    return status;
}

soma_status soma__png_size(int *width, int *height, const void *bytes, size_t size, const char *where, soma_error *err) {
    png_image image;
    SOMA_TRY(begin(&image, bytes, size, where, err));
    *width = (int)image.width;
    *height = (int)image.height;
    png_image_free(&image);
    return SOMA_OK;
}

soma_status soma__png_decode(uint8_t *rgb, int width, int height, const void *bytes, size_t size, const char *where, soma_error *err) {
    png_image image;
    SOMA_TRY(begin(&image, bytes, size, where, err));
    if ((int)image.width != width || (int)image.height != height) {
        soma_status status = soma__fail(err, SOMA_BAD_INPUT, "%s: the picture is %u x %u, wanted are %d x %d", where, image.width,
                                        image.height, width, height);
        png_image_free(&image);
        return status;
    }
    // with alpha kept in the file's format, libpng would blend it onto a background; reading RGBA and dropping A keeps the colours
    if (!(image.format & PNG_FORMAT_FLAG_ALPHA)) {
        image.format = PNG_FORMAT_RGB;
        return png_image_finish_read(&image, NULL, rgb, 0, NULL) ? SOMA_OK : fail_png(err, &image, where);
    }
    image.format = PNG_FORMAT_RGBA;
    uint8_t *rgba = soma__alloc((size_t)width * (size_t)height * 4);
    if (!rgba) {
        png_image_free(&image);
        return soma__no_memory(err, where);
    }
    bool ok = png_image_finish_read(&image, NULL, rgba, 0, NULL);
    for (size_t i = 0; ok && i < (size_t)width * (size_t)height; i++) memcpy(rgb + 3 * i, rgba + 4 * i, 3);
    soma__free(rgba);
    return ok ? SOMA_OK : fail_png(err, &image, where);
}

static bool is_jpeg(const void *bytes, size_t size) { return size >= 3 && !memcmp(bytes, "\xff\xd8\xff", 3); }

soma_status soma__image_size(int *width, int *height, const void *bytes, size_t size, const char *where, soma_error *err) {
    return (is_jpeg(bytes, size) ? soma__jpeg_size : soma__png_size)(width, height, bytes, size, where, err);
}

soma_status soma__image_decode(uint8_t *rgb, int width, int height, const void *bytes, size_t size, const char *where, soma_error *err) {
    return (is_jpeg(bytes, size) ? soma__jpeg_decode : soma__png_decode)(rgb, width, height, bytes, size, where, err);
}

soma_status soma__png_encode(void **bytes, size_t *size, const uint8_t *rgb, int width, int height, soma_error *err) {
    png_image image = {.version = PNG_IMAGE_VERSION, .width = (png_uint_32)width, .height = (png_uint_32)height, .format = PNG_FORMAT_RGB};
    png_alloc_size_t room = PNG_IMAGE_PNG_SIZE_MAX(image);
    *size = 0;
    *bytes = soma__alloc(room);
    if (!*bytes) return soma__no_memory(err, "a PNG picture");
    if (!png_image_write_to_memory(&image, *bytes, &room, 0, rgb, 0, NULL)) {
        soma__free(*bytes);
        *bytes = NULL;
        return fail_png(err, &image, "a picture to be written");
    }
    *size = room;
    return SOMA_OK;
}
