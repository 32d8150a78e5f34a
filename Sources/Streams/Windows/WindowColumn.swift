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

        init(_ measure: WindowMeasure) {
            self =
                switch measure {
                case .sum, .mean: .sum
                case .variance, .stddev: .moments
                case .quantile: .histogram
                case .distinct, .top: .distinct
                case .min: .least
                case .max: .most
                case .count, .first, .oldest, .newest, .nthNewest, .last, .secondsSince, .hoursSince: []
                }
        }

        /// What few windows keep, and not every key should have room for.
        static let rare: Measures = [.moments, .histogram, .distinct]
    }

    private struct Rare {
        var moments = Moments()
        var histogram = LogHistogram()
        var distinct: [UInt64: Int] = [:]
    }

    private let measures: Measures
    private(set) var count = 0
    private var sum = ExactSum()
    /// One, or none where it is not asked for.
    private var rare: [Rare]
    private var least = ExtremeQueue(keepsLeast: true)
    private var most = ExtremeQueue(keepsLeast: false)

    init(_ measures: Measures) {
        self.measures = measures
        rare = measures.isDisjoint(with: .rare) ? [] : [Rare()]
    }

    /// - Parameter entry: the value's number; each is higher than the one before.
    mutating func add(_ value: Double, _ entry: Int) {
        count += 1
        if measures.contains(.sum) { sum.add(value) }
        if measures.contains(.least) { least.add(value, entry) }
        if measures.contains(.most) { most.add(value, entry) }
        guard !rare.isEmpty else { return }
        if measures.contains(.moments) { rare[0].moments.add(value) }
        if measures.contains(.histogram) { rare[0].histogram.add(value) }
        if measures.contains(.distinct) { rare[0].distinct[value.bitPattern, default: 0] += 1 }
    }

    /// Takes the oldest value away.
    mutating func remove(_ value: Double, _ entry: Int) {
        count -= 1
        if measures.contains(.sum) { sum.subtract(value) }
        if measures.contains(.least) { least.remove(entry) }
        if measures.contains(.most) { most.remove(entry) }
        guard !rare.isEmpty else { return }
        if measures.contains(.moments) { rare[0].moments.subtract(value) }
        if measures.contains(.histogram) { rare[0].histogram.subtract(value) }
        if measures.contains(.distinct) {
            let left = rare[0].distinct[value.bitPattern, default: 1] - 1
            rare[0].distinct[value.bitPattern] = left > 0 ? left : nil
        }
    }

    /// How often each value stands there, where that is kept.
    var counts: [UInt64: Int] { rare.first?.distinct ?? [:] }

    /// NaN where there is nothing to tell. Mutating for speed alone: so it is read in place, where otherwise a copy would
    /// hold on to every array in it.
    mutating func value(_ reading: WindowReading) -> Double {
        if reading.measure == .distinct { return Double(rare.first?.distinct.count ?? 0) }
        guard count > 0 else { return .nan }
        return switch reading.measure {
        case .sum: sum.value
        case .mean: sum.value / Double(count)
        case .variance: rare[0].moments.variance(sample: true) ?? .nan
        case .stddev: (rare[0].moments.variance(sample: true) ?? .nan).squareRoot()
        case .quantile: rare[0].histogram.quantile(reading.share) ?? .nan
        case .min: least.first ?? .nan
        case .max: most.first ?? .nan
        case .count, .first, .oldest, .newest, .nthNewest, .top, .last, .secondsSince, .hoursSince, .distinct: .nan
        }
    }
}
