// SPDX-License-Identifier: Apache-2.0
// A certificate for localhost that signs itself, and its key: for tests alone. Made by
//     openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem -days 36500
//         -subj /CN=localhost -addext "subjectAltName=DNS:localhost,IP:127.0.0.1"
#ifndef TESTS_SERVE_TOY_TLS_H
#define TESTS_SERVE_TOY_TLS_H

// clang-format off
static const char toy_cert[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBmzCCAUGgAwIBAgIUBD/Thm4lqwWwQOazEBFTV8Gnoz4wCgYIKoZIzj0EAwIw\n"
    "FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMjA0MzAyMVoYDzIxMjYxMDI5\n"
    "MDQzMDIxWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO\n"
    "PQMBBwNCAASyHVROd0Tf3cZ7CokyHiarE26LlcerY0Zi9aWpjLFPpIFTiYCMGWF8\n"
    "KyRfMXqyebTK2q4rQDBKtZs0edfqpDIQo28wbTAdBgNVHQ4EFgQU7I7lFzdNexk3\n"
    "ARZFDoMFV525PEMwHwYDVR0jBBgwFoAU7I7lFzdNexk3ARZFDoMFV525PEMwDwYD\n"
    "VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI\n"
    "zj0EAwIDSAAwRQIhAK5KdqW6O5liDkwdqi5cSsjbhsWkws6yJ8iAbyJcKKZ4AiBO\n"
    "v29V1zshsTTryvsa2bnn8FmF21EXw5S4jp7mTk9UFw==\n"
    "-----END CERTIFICATE-----\n";
static const char toy_key[] =
    "-----BEGIN PRIVATE KEY-----\n"
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQglDo4IbsPqb2vAEko\n"
    "2Z9C1Ja3UbbQ247KXsYhknUCUjGhRANCAASyHVROd0Tf3cZ7CokyHiarE26Llcer\n"
    "Y0Zi9aWpjLFPpIFTiYCMGWF8KyRfMXqyebTK2q4rQDBKtZs0edfqpDIQ\n"
    "-----END PRIVATE KEY-----\n";
// clang-format on

#endif
