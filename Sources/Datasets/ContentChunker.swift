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
        return gear.withUnsafeBufferPointer { gear in
            var hash: UInt64 = 0
            var index = smallest
            let middle = min(usual, count)
            while index < middle {
                hash = (hash << 1) &+ gear[Int(bytes[index])]
                if hash & strict == 0 { return index + 1 }
                index += 1
            }
            while index < count {
                hash = (hash << 1) &+ gear[Int(bytes[index])]
                if hash & lenient == 0 { return index + 1 }
                index += 1
            }
            return count
        }
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
