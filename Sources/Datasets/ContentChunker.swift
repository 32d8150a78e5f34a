import Base

/// Cuts bytes where their content says so, so that what is inserted or changed moves only the cuts around it: FastCDC with
/// normalised chunking (Xia et al., USENIX ATC 2016, algorithm 1).
package enum ContentChunker {
    /// Bytes of the smallest, the usual and the largest chunk.
    package static let smallest = 8 << 10
    package static let usual = 64 << 10
    package static let largest = 128 << 10

    /// 2 bits more than the usual size has (18), and 2 less (14): sizes crowd around the usual one. Bit n depends on
    /// the last n + 1 bytes, so the low ones are left out.
    private static let strict = spread(18)
    private static let lenient = spread(14)

    /// So many ones, evenly spread over bits 63 to 16.
    private static func spread(_ ones: Int) -> UInt64 {
        var mask: UInt64 = 0
        for index in 0..<ones { mask |= 1 << UInt64(63 - index * 48 / ones) }
        return mask
    }

    /// One number for every byte: the first 256 of SplitMix64 from 0 (Steele et al., OOPSLA 2014), the same for ever.
    private static let gear: [UInt64] = {
        var state: UInt64 = 0
        return (0..<256).map { _ in
            state &+= 0x9E37_79B9_7F4A_7C15
            var value = state
            value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
            value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
            return value ^ (value >> 31)
        }
    }()

    /// The length of the first chunk; all there is when that is less than a chunk and nothing follows.
    package static func cut(_ bytes: UnsafeRawBufferPointer) -> Int {
        let count = min(bytes.count, largest)
        guard count > smallest else { return count }
        guard let base = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self) else { return count }
        return gear.withUnsafeBufferPointer { gear in
            var hash: UInt64 = 0
            var index = smallest
            if let end = scan(base, &index, to: min(usual, count), gear, &hash, strict) { return end }
            return scan(base, &index, to: count, gear, &hash, lenient) ?? count
        }
    }

    /// Looks for a cut; nil when there is none before an end. Two bytes at a time, so that fewer steps wait for each other.
    private static func scan(
        _ base: UnsafePointer<UInt8>, _ index: inout Int, to end: Int, _ gear: UnsafeBufferPointer<UInt64>,
        _ hash: inout UInt64, _ mask: UInt64
    ) -> Int? {
        var (at, sum) = (index, hash)
        defer { (index, hash) = (at, sum) }
        while at &+ 1 < end {
            let first = (sum &<< 1) &+ gear[Int(base[at])]
            let both = (sum &<< 2) &+ (gear[Int(base[at])] &<< 1 &+ gear[Int(base[at &+ 1])])
            if first & mask == 0 { return at + 1 }
            if both & mask == 0 { return at + 2 }
            sum = both
            at = at &+ 2
        }
        if at < end {
            sum = (sum &<< 1) &+ gear[Int(base[at])]
            at += 1
            if sum & mask == 0 { return at }
        }
        return nil
    }

    /// All chunks of bytes that are complete.
    package static func chunks(_ bytes: UnsafeRawBufferPointer) -> [Range<Int>] {
        var list: [Range<Int>] = []
        var from = 0
        while from < bytes.count {
            let length = cut(UnsafeRawBufferPointer(rebasing: bytes[from...]))
            list.append(from..<from + length)
            from += length
        }
        return list
    }
}
