// Crop planning of any numbers: the outputs of a crop's pieces lie one after another, fill its row together with the
// zeros around them, and are those that lie in the file; the source samples of a piece hold what its outputs need.
#include <numeric>

#include "../../csrc/cpu/crops.h"
#include "fuzz.h"

namespace {

using Wide = __int128;

// Numbers that the input spells: the number of bits, then the bits.
class Spelled {
  public:
    Spelled(const uint8_t* data, size_t size) : data_(data), left_(size) {}
    bool more() const { return left_ > 0; }
    // In [0, 2^bits).
    long long next(int bits) {
        const int wanted = byte() % (bits + 1);
        uint64_t value = 0;
        for (int got = 0; got < wanted; got += 8) value = value << 8 | byte();
        return static_cast<long long>(wanted ? value & (~0ull >> (64 - wanted)) : 0);
    }
    bool coin() { return byte() & 1; }

  private:
    uint8_t byte() { return left_ ? --left_, *data_++ : 0; }
    const uint8_t* data_;
    size_t left_;
};

fa::Plan draw_plan(Spelled& spelled, long long rate, long long out_rate) {
    fa::Plan plan = {};
    const long long common = std::gcd(rate, out_rate);
    plan.rate = rate;
    plan.up = out_rate / common;
    plan.down = rate / common;
    plan.half = 1 + spelled.next(10);
    if (spelled.coin()) {
        const long long times = 1 + spelled.next(8);
        plan.outputs = plan.up * times;
        plan.hop = plan.down * times;
        plan.lead = plan.half - 1 + spelled.next(8);
        plan.samples = plan.hop + plan.lead + plan.half + 2;
    }
    return plan;
}

// The source samples that output k needs, [first, last], in the file or not.
std::pair<Wide, Wide> needs(const fa::Plan* plan, long long k) {
    if (!plan) return {k, k};
    const Wide at = static_cast<Wide>(k) * plan->down / plan->up;
    return {at - plan->half + 1, at + plan->half};
}

void check_source(const fa::Crop& piece, long long frames) {
    FUZZ_CHECK(0 <= piece.low && piece.low <= piece.high && piece.high <= frames);
    if (!piece.count) return;
    const Wide low = needs(piece.plan, piece.first).first;
    const Wide high = needs(piece.plan, piece.first + piece.count - 1).second + 1;
    FUZZ_CHECK(piece.low <= std::max<Wide>(low, 0) && piece.high >= std::min<Wide>(high, frames));
}

struct Batch {
    std::vector<fa::Member> members;
    std::vector<fa::Plan> plans;
    std::vector<long long> member, row, start, length;
    long long out_rate, width, longest;
};

Batch draw_batch(Spelled& spelled) {
    Batch batch;
    batch.out_rate = spelled.coin() ? 1 + spelled.next(19) : 0;
    batch.width = spelled.next(40);
    batch.longest = 1 + spelled.next(40);
    const long long members = 1 + spelled.next(2);
    for (long long i = 0; i < members; ++i) {
        fa::Member member = {};
        member.rate = 1 + spelled.next(20);
        member.frames = spelled.next(46);
        batch.members.push_back(member);
        if (batch.out_rate && batch.out_rate != member.rate) {
            const bool known = std::any_of(batch.plans.begin(), batch.plans.end(),
                                           [&](const fa::Plan& plan) { return plan.rate == member.rate; });
            if (!known) batch.plans.push_back(draw_plan(spelled, member.rate, batch.out_rate));
        }
    }
    while (spelled.more() && batch.row.size() < 8) {
        batch.member.push_back(spelled.next(3) % members);
        batch.row.push_back(static_cast<long long>(batch.row.size()));
        batch.start.push_back(spelled.coin() ? -spelled.next(63) : spelled.next(63));
        batch.length.push_back(spelled.coin() ? -1 : spelled.next(63));
    }
    return batch;
}

// The pieces of one crop; returns how many there are.
size_t check_crop(const Batch& batch, size_t i, const fa::Crop* pieces, const fa::Crop* end) {
    const fa::Member& member = batch.members[static_cast<size_t>(batch.member[i])];
    const fa::Plan* plan = pieces->plan;
    FUZZ_CHECK(!plan == !(batch.out_rate && batch.out_rate != member.rate) && (!plan || plan->rate == member.rate));
    const Wide exact = plan ? (static_cast<Wide>(member.frames) * batch.out_rate + member.rate - 1) / member.rate
                            : static_cast<Wide>(member.frames);
    const Wide total = std::min<Wide>(exact, 1ll << 60);  // what is further is as good as there
    const Wide start = batch.start[i], length = batch.length[i], width = batch.width;
    const Wide stop = std::min(length < 0 ? total : start + length, start + width);
    const Wide first = std::max<Wide>(start, 0), last = std::max(first, std::min(stop, total));

    Wide next = first, row = 0;
    size_t count = 0;
    for (const fa::Crop* piece = pieces; piece < end && piece->wanted == static_cast<long long>(i); ++piece, ++count) {
        FUZZ_CHECK(piece->member == batch.member[i] && piece->row == batch.row[i] && piece->plan == plan);
        FUZZ_CHECK(piece->before >= 0 && piece->count >= 0 && piece->after >= 0);
        FUZZ_CHECK(piece->at == row + piece->before);
        if (first < last) FUZZ_CHECK(piece->first == next && piece->count > 0);
        next += piece->count;
        row += piece->before + piece->count + piece->after;
        check_source(*piece, member.frames);
    }
    FUZZ_CHECK(count > 0 && row == width && next == last);
    // Long ones are cut: into pieces of about `longest` source samples, never below an output.
    const Wide size = plan ? std::max<Wide>(static_cast<Wide>(batch.longest) * batch.out_rate / member.rate, 1)
                           : static_cast<Wide>(batch.longest);
    for (size_t k = 0; count > 1 && k < count; ++k) {
        FUZZ_CHECK(pieces[k].count <= 2 * size);
        FUZZ_CHECK(!k || pieces[k].first % size == 0);
    }
    if (count == 1)
        FUZZ_CHECK(pieces->high - pieces->low < 3 * static_cast<Wide>(batch.longest) || last - first <= 3 * size);
    return count;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
    Spelled spelled(data, bytes);
    const Batch batch = draw_batch(spelled);
    Wide pieces = 0;  // at most: memory is not what is looked for
    for (size_t i = 0; i < batch.row.size(); ++i) {
        const fa::Member& member = batch.members[static_cast<size_t>(batch.member[i])];
        const Wide rate = batch.out_rate ? batch.out_rate : member.rate;
        pieces += batch.width / std::max<Wide>(static_cast<Wide>(batch.longest) * rate / member.rate, 1) + 2;
    }
    if (pieces > 10'000) return 0;
    const long long count = static_cast<long long>(batch.row.size());
    const fa::Wanted wanted = {batch.member.data(), batch.row.data(), batch.start.data(), batch.length.data(), count};
    const std::vector<fa::Crop> crops =
        fa::make_crops(batch.members.data(), wanted, batch.plans.data(), static_cast<long long>(batch.plans.size()),
                       batch.out_rate, batch.width, batch.longest);
    const fa::Crop* at = crops.data();
    const fa::Crop* const end = at + crops.size();
    for (size_t i = 0; i < batch.row.size(); ++i) {
        FUZZ_CHECK(at < end && at->wanted == static_cast<long long>(i));
        at += check_crop(batch, i, at, end);
    }
    FUZZ_CHECK(at == end);
    return 0;
}
