// local_cards: which of this machine's cards a group of `octant up` gets, so that its groups do not
// all begin with the first one. Pure but for where the list comes from.
#ifndef OCTANT_CLIENT_LOCAL_CARDS_H
#define OCTANT_CLIENT_LOCAL_CARDS_H

#include <stdbool.h>
#include <stddef.h>

enum { LOCAL_CARDS_TEXT_MAX = 2048 };

// The machine's cards as CUDA_VISIBLE_DEVICES lists them: that variable where it is set, else one
// number for each /dev/nvidiaN. "" where there are none.
void local_cards_list(char text[LOCAL_CARDS_TEXT_MAX]);

// The part of the comma-separated list `all` that group `index` of `groups` gets: an even cut, in
// order. Groups that outnumber the cards take turns. False: the list is empty, or one group has it
// all.
bool local_cards_share(const char *all, int index, int groups, char part[LOCAL_CARDS_TEXT_MAX]);

#endif
