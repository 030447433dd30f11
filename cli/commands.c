// SPDX-License-Identifier: Apache-2.0
//
// The table of commands, in the order in which --help lists them.
#include "cli/commands.h"

const struct cli_command *const cli_commands[] = {
    &command_volume_create, &command_volume_list,  &command_volume_delete,
    &command_import,        &command_export,       &command_read,
    &command_write,         &command_push,         &command_pull,
    &command_sync,          &command_reset,        &command_fork,
    &command_clone,         &command_status,       &command_log,
    &command_watch,         &command_segment_list, &command_segment_show,
    &command_check,         &command_stub,         NULL,
};
