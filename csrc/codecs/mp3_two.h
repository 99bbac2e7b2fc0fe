// The Huffman codes of two granules and channels read side by side. A code's length is known only when it was looked
// up, so that one stream keeps a processor waiting; two fill each other's waits.
#pragma once

#include "mp3_lines.h"

struct FaMp3Coded {
    FaMp3Bits bits;  // behind the scale factors
    const FaMp3Granule* granule;
    long long end;     // bit
    int16_t* lines;    // (kMp3Lines)
    int count, large;  // what fa_mp3_huffman returns
};

// One of the two on its way through its regions.
struct FaMp3Walk {
    const FaMp3Tables& t;
    FaMp3Coded& of;
    FaMp3Pairs now;
    const int16_t* stop;
    int16_t* above;
    int region;

    FA_HD FaMp3Walk(const FaMp3Tables& tables, FaMp3Coded& coded)
        : t(tables),
          of(coded),
          now(FaMp3Window(coded.bits), tables, 0, coded.lines),
          stop(coded.lines),
          above(coded.lines),
          region(-1) {}
    // To the next region that has codes; false behind the last.
    FA_HD bool enter() {
        const FaMp3Granule& g = *of.granule;
        while (++region < 3) {
            stop = of.lines + fa_min(region < 2 ? g.region[region] : kMp3Lines, fa_min(2 * g.big_values, kMp3Lines));
            const int table = g.table[region];
            if (t.root[table] == 0) {  // zeros without bits
                while (now.to < stop) *now.to++ = 0;
            } else if (now.to < stop) {
                now = FaMp3Pairs(now.window, t, table, now.to);
                return true;
            }
        }
        return false;
    }
    FA_HD bool leave() {
        now.take_until(stop, above);
        return enter();
    }
    FA_HD int fours() const { return static_cast<int>(stop - now.to) / 8; }  // of pairs
    FA_HD void finish() {
        of.large = static_cast<int>(above - of.lines);
        of.count = fa_mp3_finish(of.bits, t, *of.granule, of.end, now.window, of.lines);
    }
};

// As fa_mp3_huffman of each.
FA_HD void fa_mp3_huffman_two(const FaMp3Tables& t, FaMp3Coded& one, FaMp3Coded& other) {
    FaMp3Walk a(t, one), b(t, other);
    bool more_a = a.enter(), more_b = b.enter();
    while (more_a && more_b) {
        FaMp3Pairs x = a.now, y = b.now;  // copies, which registers can hold
        int16_t *above_x = a.above, *above_y = b.above;
        for (int left = fa_min(a.fours(), b.fours()); left > 0; --left) {
            x.window.refill();
            y.window.refill();
            for (int i = 0; i < 4; ++i) {
                x.take(above_x);
                y.take(above_y);
            }
        }
        a.now = x, b.now = y;
        a.above = above_x, b.above = above_y;
        const bool leave_a = a.fours() == 0, leave_b = b.fours() == 0;
        if (leave_a) more_a = a.leave();
        if (leave_b) more_b = b.leave();
    }
    while (more_a) more_a = a.leave();
    while (more_b) more_b = b.leave();
    a.finish();
    b.finish();
}
