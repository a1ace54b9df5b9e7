// commands: the entry of each `octant` command: argv[0] is the command's name. Returns the
// process's exit status: 0, 1 (failed, one line said why), 2 (wrong usage), 130 (interrupted).
#ifndef OCTANT_CLIENT_COMMANDS_H
#define OCTANT_CLIENT_COMMANDS_H

int command_up(int argc, char **argv);
int command_run(int argc, char **argv);
int command_chat(int argc, char **argv);
int command_status(int argc, char **argv);
int command_top(int argc, char **argv);
int command_plan(int argc, char **argv);
int command_route(int argc, char **argv);
int command_cost(int argc, char **argv);
int command_audit(int argc, char **argv);

#endif
