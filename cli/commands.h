// SPDX-License-Identifier: Apache-2.0
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include "cli/cli.h"

extern const struct cli_command command_volume_create, command_volume_list, command_volume_delete; // volume.c
extern const struct cli_command command_import;                                                    // import.c
extern const struct cli_command command_export;                                                    // export.c
extern const struct cli_command command_read, command_write;                                       // page.c
extern const struct cli_command command_push, command_pull, command_sync, command_reset, command_fork,
    command_clone;                                                                         // sync.c
extern const struct cli_command command_status, command_log, command_watch, command_check; // inspect.c
extern const struct cli_command command_segment_list, command_segment_show;                // segment.c
extern const struct cli_command command_stub;                                              // stub.c

// sync --watch: the volumes named, or all.
enum exit_code cli_sync_watch(struct cli *cli, char **arguments, int argument_count); // sync_watch.c

#endif
