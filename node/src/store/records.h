/* The small files of a store: read whole, replaced whole, synced with their directory. */
#ifndef NODE_STORE_RECORDS_H
#define NODE_STORE_RECORDS_H

#include <stddef.h>
#include <stdint.h>

#define STORE_RECORD_MAX 512 /* bytes; the largest, IDENTITY, has 128 */

/* Errors: NOTFOUND, CORRUPT (longer than STORE_RECORD_MAX), IO. */
int store_record_read(int directory, const char *name, uint8_t ret_data[STORE_RECORD_MAX], size_t *ret_n);
/* Durable when it returns: temporary file, fsync, rename, fsync of the directory. Errors: NOSPACE, IO. */
int store_record_write(int directory, const char *name, const void *data, size_t n);
/* errno as a code. */
int store_errno(void);

/* The first 8 bytes of the SHA-256 of data, appended to records that must be recognised as whole. */
#define STORE_CHECKSUM_SIZE 8
void store_checksum(const uint8_t *data, size_t n, uint8_t ret[STORE_CHECKSUM_SIZE]);

#endif
