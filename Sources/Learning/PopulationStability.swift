import Base
import Foundation

/// The reference of one feature for the population stability index: deciles of the reference with a bin of its own for
/// missing values. PSI = sum of (r - c) ln(r / c), shares floored at 1e-4 (the credit-risk convention; native convention
/// "deciles-missing-1e-4").
package struct StabilityReference: Sendable, Equatable {
    package static let floor = 1e-4
    package static let bins = 10

    /// Upper edges of all bins but the last, ascending and distinct; a value belongs to the first bin whose edge it does not
    /// exceed. Few distinct values give fewer bins.
    package let edges: [Double]
    /// Reference shares by bin; the last is the share of missing values.
    package let shares: [Double]

    package init(edges: [Double], shares: [Double]) {
        self.edges = edges
        self.shares = shares
    }

    package init(values: [Float]) {
        let present = values.filter { !$0.isNaN }.map { Double($0) }.sorted()
        var edges: [Double] = []
        if !present.isEmpty {
            for index in 1..<StabilityReference.bins {
                // An order statistic, not an interpolation, so that edges are values that occur.
                let edge = present[min(present.count - 1, max(0, (present.count * index + 9) / 10 - 1))]
                if edges.last != edge { edges.append(edge) }
            }
            if edges.last == present.last { edges.removeLast() }
        }
        var counts = [Int](repeating: 0, count: edges.count + 2)
        for value in values { counts[StabilityReference.bin(value, edges)] += 1 }
        self.init(edges: edges, shares: counts.map { Double($0) / Double(max(values.count, 1)) })
    }

    package var binCount: Int { edges.count + 2 }

    @inline(__always)
    package static func bin(_ value: Float, _ edges: [Double]) -> Int {
        guard !value.isNaN else { return edges.count + 1 }
        let wide = Double(value)
        var low = 0
        var high = edges.count
        while low < high {
            let middle = (low + high) / 2
            if wide <= edges[middle] { high = middle } else { low = middle + 1 }
        }
        return low
    }

    /// PSI of counts by bin against the reference; nil without any count.
    package func index(counts: [Int]) -> Double? {
        let total = counts.reduce(0, +)
        guard total > 0, counts.count == shares.count else { return nil }
        var sum = ExactSum()
        for (count, share) in zip(counts, shares) {
            let current = max(Double(count) / Double(total), StabilityReference.floor)
            let reference = max(share, StabilityReference.floor)
            sum.add((reference - current) * log(reference / current))
        }
        return sum.value
    }

    package var json: JSON {
        .object(["edges": .array(edges.map { .double($0) }), "shares": .array(shares.map { .double($0) })])
    }

    package init?(json: JSON) {
        guard let edges = json["edges"]?.array?.compactMap(\.double),
            let shares = json["shares"]?.array?.compactMap(\.double),
            shares.count == edges.count + 2
        else { return nil }
        self.init(edges: edges, shares: shares)
    }
}
