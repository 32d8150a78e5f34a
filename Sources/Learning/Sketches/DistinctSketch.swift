import Base

/// How many different values there were: exactly up to `exactLimit`, beyond it by HyperLogLog with 4096 registers (standard
/// error 1.6 %). It depends on the set of values alone: order, repetition and the way parts were merged change no bit.
/// Estimator: Ertl, "New cardinality estimation algorithms for HyperLogLog sketches", 2017, algorithm 6 (no bias tables).
package struct DistinctSketch: Sendable, Equatable {
    /// Up to so many values their hashes are kept.
    package static let exactLimit = 512
    private static let precision: UInt64 = 12
    private static let registerCount = 1 << Int(precision)

    /// Hashes, ascending; empty once there are registers.
    private var hashes: [UInt64] = []
    /// For each register the longest run of zeros plus one; empty while hashes are kept.
    private var registers: [UInt8] = []

    package init() {}

    /// A bijection, so that hashes that differ stay different (the finisher of splitmix64).
    private static func scatter(_ hash: UInt64) -> UInt64 {
        var mixed = hash
        mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
        return mixed ^ mixed >> 31
    }

    package mutating func add(_ text: String) {
        var text = text
        insert(DistinctSketch.scatter(text.withUTF8 { stableHash(UnsafeRawBufferPointer($0), seed: 2) }))
    }

    /// Both zeros are one value; NaN is none and is left out.
    package mutating func add(_ value: Double) {
        if !value.isNaN { insert(DistinctSketch.scatter((value == 0 ? 0 : value).bitPattern)) }
    }

    private mutating func insert(_ hash: UInt64) {
        guard registers.isEmpty else { return note(hash) }
        var (low, high) = (0, hashes.count)
        while low < high {
            let middle = (low + high) / 2
            if hashes[middle] < hash { low = middle + 1 } else { high = middle }
        }
        guard low == hashes.count || hashes[low] != hash else { return }
        hashes.insert(hash, at: low)
        if hashes.count > DistinctSketch.exactLimit { spill() }
    }

    private mutating func spill() {
        registers = Array(repeating: 0, count: DistinctSketch.registerCount)
        for hash in hashes { note(hash) }
        hashes = []
    }

    private mutating func note(_ hash: UInt64) {
        let register = Int(hash >> (64 - DistinctSketch.precision))
        let rest = hash << DistinctSketch.precision | 1 << (DistinctSketch.precision - 1)
        registers[register] = max(registers[register], UInt8(rest.leadingZeroBitCount + 1))
    }

    package mutating func merge(_ other: DistinctSketch) {
        if other.registers.isEmpty {
            for hash in other.hashes { insert(hash) }
            return
        }
        if registers.isEmpty { spill() }
        for index in registers.indices { registers[index] = max(registers[index], other.registers[index]) }
    }

    /// Whether `value` is exact.
    package var isExact: Bool { registers.isEmpty }

    package var value: Double {
        guard !registers.isEmpty else { return Double(hashes.count) }
        let longest = 64 - Int(DistinctSketch.precision) + 1
        var histogram = [Int](repeating: 0, count: longest + 1)
        for register in registers { histogram[Int(register)] += 1 }
        let size = Double(DistinctSketch.registerCount)
        var sum = size * DistinctSketch.tau(1 - Double(histogram[longest]) / size)
        for length in stride(from: longest - 1, through: 1, by: -1) { sum = 0.5 * (sum + Double(histogram[length])) }
        sum += size * DistinctSketch.sigma(Double(histogram[0]) / size)
        // 1 / (2 ln 2)
        return (0.7213475204444817 * size * size / sum).rounded()
    }

    private static func sigma(_ share: Double) -> Double {
        if share == 1 { return .infinity }
        var (x, y, z) = (share, 1.0, share)
        while true {
            x *= x
            let last = z
            z += x * y
            y += y
            if z == last { return z }
        }
    }

    private static func tau(_ share: Double) -> Double {
        if share == 0 || share == 1 { return 0 }
        var (x, y, z) = (share, 1.0, 1 - share)
        while true {
            x = x.squareRoot()
            let last = z
            y *= 0.5
            z -= (1 - x) * (1 - x) * y
            if z == last { return z / 3 }
        }
    }

    package func encode(into writer: inout ByteWriter) {
        writer.append(UInt8(registers.isEmpty ? 0 : 1))
        if registers.isEmpty {
            writer.append(little: UInt32(hashes.count))
            for hash in hashes { writer.append(little: hash) }
        } else {
            writer.append(registers)
        }
    }

    package init(decoding reader: inout ByteReader) throws(BaseError) {
        let damaged = BaseError("bad-sketch", "a sketch of distinct values is damaged", fault: .world)
        switch try reader.byte() {
        case 0:
            let count = Int(try reader.little(UInt32.self))
            try reader.require(count * 8)
            for _ in 0..<count {
                let hash: UInt64 = try reader.little()
                guard hashes.last.map({ $0 < hash }) ?? true else { throw damaged }
                hashes.append(hash)
            }
        case 1: registers = [UInt8](try reader.slice(DistinctSketch.registerCount))
        default: throw damaged
        }
    }
}
