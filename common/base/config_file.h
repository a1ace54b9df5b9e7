// config_file: a program's section of octant.yaml, by libyaml. The half of config that reads files;
// for config.c alone.
#ifndef OCTANT_BASE_CONFIG_FILE_H
#define OCTANT_BASE_CONFIG_FILE_H

#include "common/base/config.h"

// Sets the options that the section names. Errors begin with FILE:LINE:COLUMN.
status config_file_read(const config_program *program, const char *path, arena *memory);

// The option of exactly this name, or NULL; the nearest name to a misspelt one, or NULL.
const config_option *config_find(const config_program *program, const char *name);
const char *config_nearest(const config_program *program, const char *name);

#endif
