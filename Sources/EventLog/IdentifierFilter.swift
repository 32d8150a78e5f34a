import Base
import Foundation

/// Tells at once that an id is in none of a log's files of ids; only where it may be in one they are looked through. Grows
/// by filters of double the size, so a look costs one line of memory each. A blocked Bloom filter (Putze, Sanders, Singler
/// 2007: Cache-, Hash- and Space-Efficient Bloom Filters): 10 bits an id, one wrong "perhaps" in about 80.
package struct IdentifierFilter: Sendable {
    private static let bitsPerIdentifier = 10
    private static let blockBits = 512
    private static let probes = 7
    /// Ids of the first filter, and of the largest.
    private static let smallest = 1 << 17
    private static let largest = 1 << 26

    /// Zeroed by the system page by page, so that making a large one stops nobody. Sendable because it is only touched under
    /// the lock of the log's sequencer.
    private final class Blocks: @unchecked Sendable {
        let words: UnsafeMutablePointer<UInt64>
        let count: Int

        init?(identifiers: Int) {
            count = identifiers * bitsPerIdentifier / blockBits + 1
            guard let memory = calloc(count, blockBits / 8) else { return nil }
            words = memory.bindMemory(to: UInt64.self, capacity: count * blockBits / 64)
        }

        deinit { free(words) }

        /// The first word of the block that an id belongs to.
        @inline(__always)
        func block(_ hash: (UInt64, UInt64)) -> UnsafeMutablePointer<UInt64> {
            words + Int(truncatingIfNeeded: hash.1.multipliedFullWidth(by: UInt64(count)).high) * (blockBits / 64)
        }
    }

    private var filters: [Blocks] = []
    /// Ids in the newest filter, and how many it is made for.
    private var used = 0
    private var capacity = 0
    package private(set) var count = 0

    package init() {}

    /// Takes an id. False when there is no memory for more; then nothing can be told of ids that were not taken.
    package mutating func insert(_ hash: (UInt64, UInt64)) -> Bool {
        if used >= capacity {
            let next = capacity == 0 ? IdentifierFilter.smallest : min(capacity * 2, IdentifierFilter.largest)
            guard let blocks = Blocks(identifiers: next) else { return false }
            filters.append(blocks)
            (used, capacity) = (0, next)
        }
        let block = filters[filters.count - 1].block(hash)
        var bits = hash.0
        for _ in 0..<IdentifierFilter.probes {
            block[Int(bits >> 6 & 7)] |= 1 << (bits & 63)
            bits >>= 9
        }
        used += 1
        count += 1
        return true
    }

    /// False: it was never taken.
    package func mayHold(_ hash: (UInt64, UInt64)) -> Bool {
        filters.contains { filter in
            let block = filter.block(hash)
            var bits = hash.0
            for _ in 0..<IdentifierFilter.probes {
                guard block[Int(bits >> 6 & 7)] & 1 << (bits & 63) != 0 else { return false }
                bits >>= 9
            }
            return true
        }
    }
}
