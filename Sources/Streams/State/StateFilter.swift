import Base

/// Which keys a run may hold: a Bloom filter in blocks of 512 bits, so that a question touches one line of the cache (Putze,
/// Sanders, Singler, "Cache-, hash- and space-efficient Bloom filters", 2007). Ten bits a key and seven of them set: about
/// two in a hundred keys that it does not hold are looked for in vain.
struct StateFilter: Sendable {
    private static let bitsPerKey = 10
    private static let bitsSet = 7
    private static let blockWords = 8

    private var words: [UInt64]

    init(_ hashes: [UInt64]) {
        let blocks = max(1, (hashes.count * Self.bitsPerKey + 511) / 512)
        words = Array(repeating: 0, count: blocks * Self.blockWords)
        for hash in hashes {
            let (block, steps) = place(hash)
            for step in 0..<Self.bitsSet {
                let bit = Int(truncatingIfNeeded: steps >> UInt64(step * 9)) & 511
                words[block + bit >> 6] |= 1 << UInt64(bit & 63)
            }
        }
    }

    /// First word of a key's block, and nine bits for each of its places there.
    private func place(_ hash: UInt64) -> (block: Int, steps: UInt64) {
        let mixed = hash.multipliedFullWidth(by: 0x9e37_79b9_7f4a_7c15)
        let blocks = UInt64(words.count / Self.blockWords)
        return (Int((mixed.high ^ mixed.low).multipliedFullWidth(by: blocks).high) * Self.blockWords, hash)
    }

    func mayHold(_ hash: UInt64) -> Bool {
        let (block, steps) = place(hash)
        for step in 0..<Self.bitsSet {
            let bit = Int(truncatingIfNeeded: steps >> UInt64(step * 9)) & 511
            guard words[block + bit >> 6] & 1 << UInt64(bit & 63) != 0 else { return false }
        }
        return true
    }

    var bytes: [UInt8] {
        var writer = ByteWriter(capacity: words.count * 8)
        for word in words { writer.append(little: word) }
        return writer.bytes
    }

    init?(_ raw: UnsafeRawBufferPointer) {
        guard raw.count > 0, raw.count % (Self.blockWords * 8) == 0 else { return nil }
        words = (0..<raw.count / 8).map {
            UInt64(littleEndian: raw.loadUnaligned(fromByteOffset: $0 * 8, as: UInt64.self))
        }
    }
}
