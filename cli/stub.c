// SPDX-License-Identifier: Apache-2.0
//
// stub: a file that programs can open instead of naming a volume.
#include "cli/commands.h"

static enum exit_code run(struct cli *cli, char **arguments, int argument_count)
{
    struct graft_error err;
    if (graft_stub_write(arguments[1], arguments[0], &err) != GRAFT_OK)
        return cli_fail(cli, &err);
    return cli_answer(cli, json_pack("{s:s, s:s}", "vid", arguments[0], "file", arguments[1]),
                      "%s is a stub of %s", arguments[1], arguments[0]);
}

const struct cli_command command_stub = {
    .name = "stub",
    .arguments = "VID FILE",
    .summary = "make a file that SQLite opens as the volume",
    .about =
        "Writes a small text file that names the volume. SQLite programs that use the VFS `graft` open the file as the "
        "volume; nothing else is in it, and the volume need not be here yet. A file of that name is replaced.",
    .argument_min = 2,
    .argument_max = 2,
    .run = run,
};
