// Linked into sanitized programs that start MPI, nowhere else: lets LeakSanitizer see which library
// holds what. A program's own definitions come before the C library's, and before the sanitizer's,
// which are weak.
//
// Modules stay loaded to the end. Open MPI, PMIx and hwloc load their components with dlopen, and
// MPI_Finalize unloads them before the heap is looked at. What a component had left is then
// "leaked" from an <unknown module>: its globals, which hold the pointers, are unmapped, and no
// line of lsan.supp can name it.
//
// The asprintf family is ours, since the C library's is compiled without frame pointers: the stack
// of its allocation ends in the C library and does not name the caller.
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

// What the headers name when they check formats (_FORTIFY_SOURCE), as distributions' packages do.
int __vasprintf_chk(char **out, int flag, const char *format, va_list arguments);
int __asprintf_chk(char **out, int flag, const char *format, ...);

int dlclose(void *handle) {
    (void)handle;
    return 0;
}

// Inlined, so that its caller's caller is the second frame of the stack: frames further up are lost
// in libraries without frame pointers.
static inline __attribute__((always_inline)) int print(char **out, const char *format,
                                                       va_list arguments) {
    va_list again;
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, again);
    va_end(again);
    *out = length < 0 ? NULL : malloc((size_t)length + 1);
    return *out ? vsnprintf(*out, (size_t)length + 1, format, arguments) : -1;
}

int vasprintf(char **out, const char *format, va_list arguments) {
    return print(out, format, arguments);
}

int __vasprintf_chk(char **out, int flag, const char *format, va_list arguments) {
    (void)flag;
    return print(out, format, arguments);
}

int asprintf(char **out, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = print(out, format, arguments);
    va_end(arguments);
    return length;
}

int __asprintf_chk(char **out, int flag, const char *format, ...) {
    (void)flag;
    va_list arguments;
    va_start(arguments, format);
    int length = print(out, format, arguments);
    va_end(arguments);
    return length;
}
