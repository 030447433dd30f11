// Writes a page, pushes it, and reads it back: cc example.c $(pkg-config --cflags --libs graft)
#include <graft.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct graft_error err;

static void check(enum graft_status status)
{
    if (status == GRAFT_OK)
        return;
    fprintf(stderr, "%s: %s\n", graft_status_text(status), err.message);
    exit(1);
}

int main(int argc, char **argv)
{
    struct graft_settings settings = {
        .data = argc > 1 ? argv[1] : "graft-data",
        .metastore = getenv("GRAFT_METASTORE"),
        .pagestore = getenv("GRAFT_PAGESTORE"),
    };
    struct graft *client;
    struct graft_volume *volume;
    struct graft_writer *writer;
    struct graft_snapshot *snapshot;
    char page[4096] = "hello, replica";
    uint64_t lsn;
    size_t size;

    check(graft_open(&settings, &client, &err));
    check(graft_volume_create(client, sizeof page, GRAFT_FIXED, &volume, &err));
    check(graft_writer_begin(volume, &writer, &err));
    check(graft_writer_write(writer, 1, page, sizeof page, &err));
    check(graft_writer_commit(writer, NULL, &err)); // durable here
    check(graft_push(volume, &lsn, &err));          // durable behind the servers

    memset(page, 0, sizeof page);
    check(graft_snapshot_open(volume, &snapshot, &err));
    check(graft_snapshot_read(snapshot, 1, page, sizeof page, &size, &err));
    printf("remote LSN %llu: %s\n", (unsigned long long)lsn, page);

    graft_snapshot_release(snapshot);
    graft_volume_close(volume);
    graft_close(client);
    return 0;
}
