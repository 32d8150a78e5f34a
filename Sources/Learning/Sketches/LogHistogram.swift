import Base

/// Counts of doubles in buckets whose width grows with the value, for quantiles with a bounded relative error. A bucket is
/// a double's sign, exponent and first bits of its mantissa (the log-linear buckets of HdrHistogram), so no logarithm is
/// taken and every machine fills the same buckets. Adding, taking away and merging are counting: exact, in any order.
package struct LogHistogram: Sendable, Equatable {
    /// Bits of the mantissa that tell buckets apart.
    package static let mantissaBits = 7
    /// A quantile is off by at most this share of itself, for normal doubles: half a bucket.
    package static let relativeError = 1.0 / Double(1 << (mantissaBits + 1))
    private static let shift = UInt64(52 - mantissaBits)

    /// Buckets in the order of the values they stand for, and how many values each holds; never 0.
    private var buckets: [Int32] = []
    private var counts: [Int64] = []
    package private(set) var count: Int64 = 0

    package init() {}

    /// Both zeros are one value. Order of buckets is order of values.
    private static func bucket(_ value: Double) -> Int32 {
        let bits = (value == 0 ? 0 : value.magnitude).bitPattern >> shift
        return value < 0 ? ~Int32(truncatingIfNeeded: bits) : Int32(truncatingIfNeeded: bits)
    }

    /// The middle of a bucket; 0 and the infinities stand for themselves.
    private static func value(_ bucket: Int32) -> Double {
        let magnitude = UInt64(bucket < 0 ? ~bucket : bucket)
        let low = Double(bitPattern: magnitude << shift)
        guard low != 0 || bucket < 0, low.isFinite else { return bucket < 0 ? -low : low }
        let middle = Double(bitPattern: magnitude << shift | 1 << (shift - 1))
        return bucket < 0 ? -middle : middle
    }

    private func place(_ bucket: Int32) -> Int {
        var (low, high) = (0, buckets.count)
        while low < high {
            let middle = (low + high) / 2
            if buckets[middle] < bucket { low = middle + 1 } else { high = middle }
        }
        return low
    }

    private mutating func change(_ bucket: Int32, by amount: Int64) {
        count += amount
        let index = place(bucket)
        guard index < buckets.count, buckets[index] == bucket else {
            buckets.insert(bucket, at: index)
            counts.insert(amount, at: index)
            return
        }
        counts[index] += amount
        if counts[index] == 0 {
            buckets.remove(at: index)
            counts.remove(at: index)
        }
    }

    /// NaN is no value and is left out.
    package mutating func add(_ value: Double) {
        if !value.isNaN { change(LogHistogram.bucket(value), by: 1) }
    }

    /// Takes a value away that was added before.
    package mutating func subtract(_ value: Double) {
        if !value.isNaN { change(LogHistogram.bucket(value), by: -1) }
    }

    package mutating func merge(_ other: LogHistogram) {
        for (bucket, count) in zip(other.buckets, other.counts) { change(bucket, by: count) }
    }

    /// Between the values of the two ranks around q · (n − 1), in proportion (Hyndman and Fan's seventh, the default of
    /// numpy and SQL's percentile_cont), each within the relative error; nil of nothing.
    package func quantile(_ q: Double) -> Double? {
        guard count > 0 else { return nil }
        let rank = min(max(q, 0), 1) * Double(count - 1)
        let low = Int64(rank)
        var (left, below) = (low, nil as Double?)
        for (bucket, count) in zip(buckets, counts) {
            if let below {
                let share = rank - Double(low)
                return below.isFinite ? below * (1 - share) + LogHistogram.value(bucket) * share : below
            }
            if left < count {
                let value = LogHistogram.value(bucket)
                // The next rank lies in the same bucket, or none is asked for.
                if left + 1 < count || rank == Double(low) { return value }
                below = value
            }
            left -= count
        }
        return below
    }

    package func encode(into writer: inout ByteWriter) {
        writer.append(little: UInt32(buckets.count))
        for (bucket, count) in zip(buckets, counts) {
            writer.append(little: UInt32(bitPattern: bucket))
            writer.append(little: count)
        }
    }

    package init(decoding reader: inout ByteReader) throws(BaseError) {
        let size = Int(try reader.little(UInt32.self))
        try reader.require(size * 12)
        for _ in 0..<size {
            let bucket = Int32(bitPattern: try reader.little(UInt32.self))
            let count: Int64 = try reader.little()
            guard count > 0, buckets.last.map({ $0 < bucket }) ?? true else {
                throw BaseError("bad-sketch", "the buckets of a histogram are out of order", fault: .world)
            }
            buckets.append(bucket)
            counts.append(count)
            self.count += count
        }
    }
}
