// SPDX-License-Identifier: Apache-2.0
//
// Page 1 of a database in its two forms. Pure functions on at least PAGE_ONE_HEADER bytes.
//
// SQLite rewrites three fields of page 1 at every commit: the change counter (bytes 24..27), the size in pages (28..31),
// and "version-valid-for" with the library's version (92..95, 96..99). Stored like that, every commit would change page 1
// of the volume. So a volume has it in *canonical* form, in which these are zero, and what SQLite reads is filled in from
// what the handle knows.
//
//     offset  field                    stored          delivered
//     18, 19  write and read version   1               1
//     24..27  change counter           0               the handle's own
//     28..31  size in pages            0               of the snapshot
//     40..43  schema cookie            that of SQLite  + the handle's offset
//     92..95  version-valid-for        0               equal to 24..27, or SQLite would not believe 28..31
//     96..99  SQLite's version         0               0
#ifndef CLIENT_PAGE_ONE_H
#define CLIENT_PAGE_ONE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_ONE_HEADER 100u

uint32_t page_one_counter(const uint8_t *page);
uint32_t page_one_cookie(const uint8_t *page);
// The size in pages that its header states; 0 in canonical form.
uint32_t page_one_page_count(const uint8_t *page);
// The page size that its header states, 0 if it is none.
uint32_t page_one_page_size(const uint8_t *page);
void page_one_set_page_size(uint8_t *page, uint32_t page_size);
// Is it page 1 of a SQLite database in canonical form?
bool page_one_is_canonical(const uint8_t *page);
// Is it of a database in a rollback mode, as far as the two versions say?
bool page_one_is_rollback(const uint8_t *page);

// SQLite's form into the canonical one, `cookie_offset` subtracted from the cookie.
void page_one_make_canonical(uint8_t *page, uint32_t cookie_offset);
// The canonical form, or an image that came with its own counters, into what SQLite reads.
void page_one_fill_in(uint8_t *page, uint32_t counter, uint32_t page_count, uint32_t cookie_offset);

// The canonical form into that of a database file of its own, which nobody has written since.
void page_one_export(uint8_t *page, uint32_t page_count);

#endif
