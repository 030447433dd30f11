// SPDX-License-Identifier: Apache-2.0
//
// Every limit of the system, enforced before memory is taken. docs/LIMITS.md states them for users; a test compares.
#ifndef COMMON_BASE_LIMITS_H
#define COMMON_BASE_LIMITS_H

#define KIB 1024ull
#define MIB (1024ull * 1024)

// volumes
#define PAGE_SIZE_MIN 512u
#define PAGE_SIZE_MAX 65536u
#define PAGE_SIZE_DEFAULT 4096u

// names
#define TAG_NAME_SIZE_MAX 64u

// messages
#define UNARY_REQUEST_SIZE_MAX (64 * KIB) // every unary call but those named below
#define COMMIT_REQUEST_SIZE_MAX (4 * MIB)
#define READ_PAGES_REQUEST_SIZE_MAX (256 * KIB)
#define WATCH_REQUEST_SIZE_MAX (512 * KIB)
#define UNARY_RESPONSE_SIZE_MAX (64 * MIB) // a pull of a very scattered page set; others are small
#define ERROR_RESPONSE_SIZE_MAX (16 * KIB)
#define RESPONSE_HEADERS_SIZE_MAX (64 * KIB) // all header lines of one answer, as a client reads them
#define COMMIT_RECORD_SIZE_MAX (COMMIT_REQUEST_SIZE_MAX + 4 * KIB)
#define COMMIT_SEGMENTS_MAX 8192u
#define PAGESET_RUNS_MAX (2u * 1024 * 1024) // in one page set
#define READ_PAGES_MAX 32768u               // pages in one read_pages call
#define WATCH_VOLUMES_MAX 16384u            // volumes in one watch call
#define WATCH_URL_SIZE_MAX 1024u            // characters of --watch-url
#define LIST_LIMIT_MAX 1000u                // entries in one answer of a list call

// streams
#define PAGE_FRAME_SIZE_MAX (PAGE_SIZE_MAX + 1024u)
#define WRITE_PAGES_PAGES_MAX 1048576u    // pages in one write_pages call
#define WRITE_PAGES_SIZE_MAX (1024 * MIB) // bytes in one write_pages body
#define RECEIVE_BUDGET_SIZE (32 * MIB)    // bytes of bodies being received, per daemon
#define DRAIN_SIZE_MAX (64 * MIB)         // read and dropped after a refusal in the middle of an upload
#define DRAIN_TIME_MAX_MS 10000u
#define DRAIN_IDLE_MAX_MS 1000u    // without a byte of it
#define UPLOAD_LOOK_MS 1000u       // how often an upload that stands still is looked at: has its peer gone?
#define HEADERS_TIME_MAX_MS 10000u // for a request's headers, beyond the idle timeout
#define UPLOAD_RATE_MIN (16 * KIB) // bytes a second, over UPLOAD_RATE_WINDOW_MS, or an upload is dropped
#define UPLOAD_RATE_WINDOW_MS 20000u

// segments
#define SEGMENT_SEAL_SIZE (8 * MIB)
#define SEGMENT_SHARED_STREAM_MAX (1 * MIB) // longer streams write segments of their own
#define SEGMENT_SIZE_MAX (64 * MIB)         // of an object that a reader accepts
#define SEGMENT_INDEX_SIZE_MAX (8 * MIB)    // decoded
#define SEGMENT_PAGES_MAX 131072u
#define SEGMENTS_OPEN_MAX 4u

// the metastore
#define COMMITTER_BATCH_SIZE (1 * MIB)
#define SUMMARY_SMALL 256u
#define SUMMARY_LARGE 65536u
#define SUMMARY_LARGE_PACK_SIZE_MAX (64 * MIB) // larger packs are not written; readers use the small ones
#define WATCH_HEARTBEAT_MS 15000u
#define WATCH_ITEMS_MAX 262144u          // watched volumes, over all watch calls of a daemon
#define VOLUMES_ACTIVE_MAX 16384u        // volumes whose heads are kept in memory
#define VOLUME_QUEUE_MAX 1024u           // requests that wait for one volume
#define COMMIT_QUEUE_SIZE_MAX (64 * MIB) // bytes of commits being decided
#define READ_JOBS_MAX 1024u              // pulls, lists and streams that wait for a reader thread
#define LONG_JOBS_MAX 64u                // forks and backups that wait for the thread that makes them

// pagestore: reading
#define READS_ACTIVE_MAX 128u           // read_pages calls that are being answered
#define CATCHINGS_MAX 1024u             // volumes that are being caught up with
#define CATCHUP_WAIT_MS 5000u           // that a read waits for that, or for a commit read again
#define REREADINGS_MAX 256u             // commits that are being read again because a segment is missing
#define NEWEST_VERSIONS_SIZE (16 * MIB) // newest versions of pages kept in memory beside the index

// background sync
#define SYNC_THREADS_MAX 6u       // of one client; below the connections that it has for one server
#define SYNC_PAUSE_MAX_MS 300000u // that servers get by asking for it (Retry-After)

// SQLite
#define OVERLAY_MEMORY_MAX (16 * MIB) // pages of one transaction; more spill to a file
#define JOURNAL_MEMORY_MAX (4 * MIB)  // of one rollback journal; likewise
#define ERRORS_KEPT_MAX 64u           // causes that graft_errors shows
#define SQL_ROWS_MAX 100000u          // of an answer that is collected
#define FRESH_VIDS_MAX 64u            // names given out for volumes that are not made yet

// page files of a client
#define CACHE_LIMIT_MIN (8 * MIB) // the least limit of fetched pages, but for none
#define COMMIT_VOLUMES_MAX 64u    // in one commit of several volumes
#define EXTENTS_MAX 4194304u      // of 1 MiB, in one directory

// shutting down
#define STOP_TIME_MAX_MS 10000u

#endif
