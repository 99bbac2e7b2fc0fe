// Headers of a tar archive in memory: where its members lie, and what is wrong with it. ustar and pax (POSIX.1-2001),
// GNU long names and numbers in base 256. Damage does not end the walk: it goes on at the next header that has the
// magic and the right checksum.
#include <cstdint>
#include <cstring>

#include "api.h"

namespace {

constexpr long long kBlock = 512;
constexpr long long kMaxMeta = 1 << 20;  // a long name or pax header beyond 1 MiB is garbage

// A contract with fastaug/shards/tar.py.
enum Kind : long long {
    kMember,     // a regular file
    kGarbage,    // `size` bytes from `data` on are neither header nor data of a member
    kTruncated,  // the file ends before the member does
    kSparse,     // a file with holes: its bytes are not stored as they are
    kLink,       // a hard or symbolic link: no bytes of its own
    kSpoiled,    // a member whose extended header is damaged
    kNoEnd,      // the file ends without the zeros that close a tar
    kZeros,      // `size` zero bytes from `data` on, and members behind them
};

struct Entry {
    long long kind, header;
    long long name, name_size, prefix, prefix_size;  // byte ranges of the file; the prefix is followed by a "/"
    long long data, size;
};

struct Entries {
    Entry* table;
    long long capacity, count;
    void add(const Entry& entry) {
        if (count < capacity) table[count] = entry;
        ++count;
    }
};

// What extended headers say of the member that follows them.
struct Extension {
    long long name = 0, name_size = -1, size = -1;
    bool sparse = false, damaged = false;
};

// Octal digits between spaces and zeros, or base 256 where the first bit is set.
bool parse_number(const uint8_t* text, int width, long long& value) {
    value = 0;
    if (text[0] & 0x80) {
        if (text[0] == 0xFF) return false;  // negative
        value = text[0] & 0x7F;
        for (int i = 1; i < width; ++i) {
            if (value >> 54) return false;
            value = value << 8 | text[i];
        }
        return true;
    }
    int i = 0;
    while (i < width && (text[i] == ' ' || text[i] == 0)) ++i;
    for (; i < width && text[i] >= '0' && text[i] <= '7'; ++i) value = value << 3 | (text[i] - '0');
    while (i < width && (text[i] == ' ' || text[i] == 0)) ++i;
    return i == width;
}

bool is_zero(const uint8_t* block) {
    if (block[0]) return false;
    uint8_t any = 0;
    for (int i = 0; i < kBlock; ++i) any |= block[i];
    return any == 0;
}

// The sum of all bytes, the checksum's own read as spaces; some old writers summed signed ones.
bool is_header(const uint8_t* block) {
    long long stored, size;
    if (!parse_number(block + 148, 8, stored) || !parse_number(block + 124, 12, size)) return false;
    int sum = 0, high = 0;
    for (int i = 0; i < kBlock; ++i) sum += block[i];
    for (int i = 148; i < 156; ++i) sum += ' ' - block[i];
    if (stored == sum) return true;
    for (int i = 0; i < kBlock; ++i) high += block[i] >> 7;
    for (int i = 148; i < 156; ++i) high -= block[i] >> 7;
    return stored == sum - 256 * high;
}

// The first block from `at` on that is a header beyond doubt, or -1.
long long next_header(const uint8_t* file, long long size, long long at) {
    for (; at + kBlock <= size; at += kBlock) {
        if (!std::memcmp(file + at + 257, "ustar", 5) && is_header(file + at)) return at;
    }
    return -1;
}

long long text_size(const uint8_t* text, long long most) {
    const void* end = std::memchr(text, 0, static_cast<size_t>(most));
    return end ? static_cast<const uint8_t*>(end) - text : most;
}

bool starts_with(const uint8_t* text, long long size, const char* word) {
    const long long n = static_cast<long long>(std::strlen(word));
    return size >= n && !std::memcmp(text, word, static_cast<size_t>(n));
}

// Records "<length> <name>=<value>\n" at file[at, at + size).
void parse_pax(const uint8_t* file, long long at, long long size, Extension& found) {
    const long long end = at + size;
    while (at < end) {
        long long length = 0, i = at;
        for (; i < end && i < at + 8 && file[i] >= '0' && file[i] <= '9'; ++i) length = length * 10 + (file[i] - '0');
        const long long stop = at + length;
        if (i == at || i == end || file[i] != ' ' || stop > end || stop <= i + 1 || file[stop - 1] != '\n') {
            found.damaged = true;
            return;
        }
        const uint8_t* text = file + i + 1;
        const long long room = stop - 1 - (i + 1);
        if (starts_with(text, room, "path=")) {
            found.name = i + 1 + 5;
            found.name_size = room - 5;
        } else if (starts_with(text, room, "size=")) {
            found.size = 0;
            for (long long k = 5; k < room && found.size >= 0; ++k) {
                const bool digit = text[k] >= '0' && text[k] <= '9' && found.size < (1LL << 58);
                found.size = digit ? found.size * 10 + (text[k] - '0') : -1;
            }
            found.damaged |= found.size < 0;
        } else if (starts_with(text, room, "GNU.sparse.")) {
            found.sparse = true;
        }
        at = stop;
    }
}

class Walk {
  public:
    Walk(const uint8_t* file, long long size, Entries& entries) : file_(file), size_(size), entries_(entries) {}

    void run() {
        while (at_ + kBlock <= size_) {
            const uint8_t* block = file_ + at_;
            const bool zero = is_zero(block);
            if (zero || !is_header(block)) {
                if (!skip_damage(zero)) return;
            } else if (!header(block)) {
                return;
            }
        }
        entries_.add(
            {kNoEnd, at_, 0, 0, 0, 0, size_, 0});  // a tar that is cut between two members looks whole otherwise
    }

  private:
    // Whether there is more to read.
    bool skip_damage(bool zero) {
        const long long next = next_header(file_, size_, at_ + kBlock);
        const long long stop = next < 0 ? size_ : next;
        if (zero && next < 0) {
            long long end = at_;
            while (end + kBlock <= size_ && is_zero(file_ + end)) end += kBlock;
            if (end + kBlock > size_) return false;
            const long long start = end - at_ > kBlock ? end : at_;  // one zero block alone does not close a tar
            entries_.add({kGarbage, start, 0, 0, 0, 0, start, size_ - start});
            return false;
        }
        entries_.add({zero ? kZeros : kGarbage, at_, 0, 0, 0, 0, at_, stop - at_});
        extension_ = Extension();
        at_ = stop;
        return next >= 0;
    }

    // One header and the data behind it; whether there is more to read.
    bool header(const uint8_t* block) {
        const char kind = static_cast<char>(block[156]);
        long long length, start = at_ + kBlock;
        parse_number(block + 124, 12, length);
        const bool extension = kind == 'L' || kind == 'K' || kind == 'x' || kind == 'X' || kind == 'g';
        if (!extension && extension_.size >= 0) length = extension_.size;
        if (kind >= '1' && kind <= '6') length = 0;  // links, devices, folders: whatever stands there, no data follow
        if (kind == 'S') {
            for (bool more = block[482]; more && start + kBlock <= size_; start += kBlock) more = file_[start + 504];
        }
        Entry entry = {kMember, at_, 0, 0, 0, 0, start, length};
        name(block, entry);
        if (length > size_ - start) {
            entry.kind = kTruncated;
            entries_.add(entry);
            return false;
        }
        if (extension) {
            extend(kind, start, length);
        } else {
            if (kind == '1' || kind == '2') entry.kind = kLink;
            if (kind == 'S' || extension_.sparse) entry.kind = kSparse;
            if (extension_.damaged) entry.kind = kSpoiled;
            const bool file = kind == '0' || kind == 0 || kind == '7' || kind == '1' || kind == '2' || kind == 'S';
            const bool folder = entry.name_size && file_[entry.name + entry.name_size - 1] == '/';
            if (file && !folder) entries_.add(entry);
            extension_ = Extension();
        }
        at_ = start + (length + kBlock - 1) / kBlock * kBlock;
        return true;
    }

    void name(const uint8_t* block, Entry& entry) const {
        entry.name = extension_.name;
        entry.name_size = extension_.name_size;
        if (entry.name_size >= 0) return;
        entry.name = at_;
        entry.name_size = text_size(block, 100);
        if (!std::memcmp(block + 257, "ustar\0", 6)) {
            entry.prefix = at_ + 345;
            entry.prefix_size = text_size(block + 345, 155);
        }
    }

    void extend(char kind, long long start, long long length) {
        if (length > kMaxMeta) {
            extension_.damaged = true;
        } else if (kind == 'L') {
            extension_.name = start;
            extension_.name_size = text_size(file_ + start, length);
        } else if (kind == 'x' || kind == 'X') {
            parse_pax(file_, start, length, extension_);
        }
    }

    const uint8_t* file_;
    const long long size_;
    Entries& entries_;
    long long at_ = 0;
    Extension extension_;
};

}  // namespace

long long fa_tar_scan(const unsigned char* file, long long size, long long* entries, long long capacity) {
    Entries found = {reinterpret_cast<Entry*>(entries), capacity, 0};
    Walk(file, size, found).run();
    return found.count;
}
