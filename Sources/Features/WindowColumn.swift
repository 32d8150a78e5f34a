import Base
import Learning

/// What is known of one column's values in one window. Everything is kept up by adding the newest value and taking the
/// oldest away, at a cost that does not depend on how many there are, and gives the bits that a recount would give.
struct WindowColumn: Sendable {
    /// What is kept up; the rest costs nothing.
    struct Measures: OptionSet {
        let rawValue: Int
        static let sum = Measures(rawValue: 1)
        static let moments = Measures(rawValue: 2)
        static let histogram = Measures(rawValue: 4)
        static let distinct = Measures(rawValue: 8)
        static let least = Measures(rawValue: 16)
        static let most = Measures(rawValue: 32)

        init(rawValue: Int) { self.rawValue = rawValue }

        init(_ function: AggregateFunction) {
            self =
                switch function {
                case .sum, .mean: .sum
                case .variance, .stddev: .moments
                case .quantile: .histogram
                case .distinct: .distinct
                case .min: .least
                case .max: .most
                case .count, .first, .last, .secondsSince, .hoursSince: []
                }
        }
    }

    private let measures: Measures
    private(set) var count = 0
    private var sum = ExactSum()
    private var moments = Moments()
    private var histogram = LogHistogram()
    private var distinct: [UInt64: Int] = [:]
    private var least = ExtremeQueue(keepsLeast: true)
    private var most = ExtremeQueue(keepsLeast: false)

    init(_ measures: Measures) { self.measures = measures }

    /// - Parameter entry: the value's number; each is higher than the one before.
    mutating func add(_ value: Double, _ entry: Int) {
        count += 1
        if measures.contains(.sum) { sum.add(value) }
        if measures.contains(.moments) { moments.add(value) }
        if measures.contains(.histogram) { histogram.add(value) }
        if measures.contains(.distinct) { distinct[value.bitPattern, default: 0] += 1 }
        if measures.contains(.least) { least.add(value, entry) }
        if measures.contains(.most) { most.add(value, entry) }
    }

    /// Takes the oldest value away.
    mutating func remove(_ value: Double, _ entry: Int) {
        count -= 1
        if measures.contains(.sum) { sum.subtract(value) }
        if measures.contains(.moments) { moments.subtract(value) }
        if measures.contains(.histogram) { histogram.subtract(value) }
        if measures.contains(.distinct) {
            let left = distinct[value.bitPattern, default: 1] - 1
            distinct[value.bitPattern] = left > 0 ? left : nil
        }
        if measures.contains(.least) { least.remove(entry) }
        if measures.contains(.most) { most.remove(entry) }
    }

    /// NaN where there is nothing to tell. Mutating for speed alone: so it is read in place, where otherwise a copy would
    /// hold on to every array in it.
    mutating func value(_ aggregate: AggregateMeasure) -> Double {
        if aggregate.function == .distinct { return Double(distinct.count) }
        guard count > 0 else { return .nan }
        return switch aggregate.function {
        case .sum: sum.value
        case .mean: sum.value / Double(count)
        case .variance: moments.variance(sample: true) ?? .nan
        case .stddev: (moments.variance(sample: true) ?? .nan).squareRoot()
        case .quantile: histogram.quantile(aggregate.share) ?? .nan
        case .min: least.first ?? .nan
        case .max: most.first ?? .nan
        case .count, .first, .last, .secondsSince, .hoursSince, .distinct: .nan
        }
    }
}
