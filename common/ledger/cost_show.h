// cost_show: a cost_report as text for people, and as JSON for programs.
#ifndef OCTANT_LEDGER_COST_SHOW_H
#define OCTANT_LEDGER_COST_SHOW_H

#include "common/base/buf.h"
#include "common/ledger/cost_report.h"

// `gpus`: cards that are paid for, which the break-even is told for.
void cost_show_text(const cost_report *r, cost_by by, int gpus, buf *out);

// One object; unknown money is null.
void cost_show_json(const cost_report *r, cost_by by, int gpus, buf *out);

#endif
