// What a batch is asked for, as what to decode: crops of members in source samples, cut where they are long.
#pragma once

#include <vector>

#include "member.h"

namespace fa {

// How to convert from one rate: a row of an int64 table that fastaug/codecs/native.py makes, the order of the fields is
// a contract with it. The arguments of fa_resample and, if a block has outputs, of fa_resample_blocks.
struct Plan {
    long long rate;  // of the source
    long long up, down, taps, half, interpolated;
    long long outputs, hop, lead, forward_size, inverse_size, target, sources, factors;
    long long samples;  // of a block
};

// Columns of such a table, as many as there are crops: outputs [start, start + length) of a member, into a row of the
// result. Length -1: to the end.
struct Wanted {
    const long long *member, *row, *start, *length;
    long long count;
};

struct Crop {
    long long wanted, member, row;
    const Plan* plan;         // null: no resampling
    long long at;             // where in the row its first output goes
    long long first, count;   // outputs [first, first + count), all inside the file
    long long low, high;      // the source samples that they need, clipped to the file
    long long before, after;  // zeros to write left and right of them
    long long status, where;  // what became of it
};

// Crops in the order of what is wanted; one that needs three times `longest` source samples or more becomes several, in
// order, which share its row. out_rate: 0 keeps each member's own. width: of a row.
std::vector<Crop> make_crops(const Member* members, const Wanted& wanted, const Plan* plans, long long plan_count,
                             long long out_rate, long long width, long long longest);

}  // namespace fa
