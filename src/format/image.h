// SPDX-License-Identifier: Apache-2.0
// PNG and JPEG pictures in memory, as RGB. `where` names the picture in sentences.
#ifndef SOMA_FORMAT_IMAGE_H
#define SOMA_FORMAT_IMAGE_H

#include "base/base.h"

// Either kind, told apart by its first bytes.
soma_status soma__image_size(int *width, int *height, const void *bytes, size_t size, const char *where, soma_error *err);
soma_status soma__image_decode(uint8_t *rgb, int width, int height, const void *bytes, size_t size, const char *where, soma_error *err);

// Size of the picture in `bytes`, from its header alone.
soma_status soma__png_size(int *width, int *height, const void *bytes, size_t size, const char *where, soma_error *err);
// Decodes into rgb: u8 [height, width, 3]. The picture must have this size; grey, palette and 16-bit pictures become 8-bit RGB, an alpha
// channel is dropped.
soma_status soma__png_decode(uint8_t *rgb, int width, int height, const void *bytes, size_t size, const char *where, soma_error *err);
// rgb: u8 [height, width, 3]. The result is released with soma__free.
soma_status soma__png_encode(void **bytes, size_t *size, const uint8_t *rgb, int width, int height, soma_error *err);

// The same of JPEG. Decoding is exact (integer transform, smooth chroma), as PIL's; bytes behind the picture's end are passed over; a
// picture that ends early or is damaged is refused, not filled with grey.
soma_status soma__jpeg_size(int *width, int *height, const void *bytes, size_t size, const char *where, soma_error *err);
soma_status soma__jpeg_decode(uint8_t *rgb, int width, int height, const void *bytes, size_t size, const char *where, soma_error *err);

#endif
