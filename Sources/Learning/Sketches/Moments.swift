import Base

/// Count, mean and variance of doubles whose sums and sums of squares carry no rounding error, so they can be taken apart
/// and put together in any order and give the same bits (`ExactSum`).
package struct Moments: Sendable {
    package private(set) var count: Int64 = 0
    private var sum = ExactSum()
    private var squares = ExactSum()

    package init() {}

    package mutating func add(_ value: Double) {
        count += 1
        sum.add(value)
        squares.add(value, times: value)
    }

    /// Takes a value away that was added before.
    package mutating func subtract(_ value: Double) {
        count -= 1
        sum.subtract(value)
        squares.subtract(value, times: value)
    }

    package func encode(into writer: inout ByteWriter) {
        writer.append(little: count)
        sum.encode(into: &writer)
        squares.encode(into: &writer)
    }

    package init(decoding reader: inout ByteReader) throws(BaseError) {
        count = try reader.little()
        sum = try ExactSum(decoding: &reader)
        squares = try ExactSum(decoding: &reader)
    }

    package mutating func merge(_ other: Moments) {
        count += other.count
        sum.merge(other.sum)
        squares.merge(other.squares)
    }

    package var mean: Double? { count > 0 ? sum.value / Double(count) : nil }

    /// The mean squared distance from the mean, over n, or over n − 1 of a sample; nil where there are too few values.
    ///
    /// Σ(x − m)² = Σx² − 2m·Σx + n·m² is put together in the accumulator for the rounded mean m, so that nothing cancels;
    /// what m lacks to the true mean is (Σx − n·m) / n, and its square times n is taken off.
    package func variance(sample: Bool) -> Double? {
        guard count > (sample ? 1 : 0), let mean else { return nil }
        let values = Double(count)
        var rest = sum
        let high = rest.value
        rest.subtract(high)
        let low = rest.value
        var spread = squares
        spread.add(-2 * mean, times: high)
        spread.add(-2 * mean, times: low)
        let square = mean * mean
        spread.add(values, times: square)
        spread.add(values, times: (-square).addingProduct(mean, mean))
        var off = sum
        off.subtract(values, times: mean)
        let gap = off.value
        return max(0, spread.value - gap * gap / values) / (sample ? values - 1 : values)
    }
}
