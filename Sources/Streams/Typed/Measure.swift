import Base
import Learning

/// What a window says of its values.
public struct Measure<Value>: Sendable {
    /// What is measured.
    public enum Kind: Sendable, Equatable {
        /// How many values there are.
        case count
        /// Exact until it is rounded once, like the mean and the variance.
        case sum
        /// The sum by the count.
        case mean
        /// With n - 1 below the line, as samples have it.
        case variance
        /// The root of the variance.
        case stddev
        /// The least.
        case min
        /// The greatest.
        case max
        /// The oldest.
        case first
        /// The newest.
        case last
        /// About how many different texts (HyperLogLog, 1.6 %; exact up to 512) in windows that are made of panes; exact in
        /// sliding ones.
        case distinct
        /// Between 0 and 1; within `LogHistogram.relativeError`.
        case quantile(Double)
        /// The most frequent texts with their counts, the first of equals by their bytes.
        case top(Int)
    }

    /// Under this name it stands in the result.
    public let name: String
    /// What is measured.
    public let kind: Kind
    @usableFromInline let number: @Sendable (Value) throws -> Double?
    @usableFromInline let text: @Sendable (Value) throws -> String?
    /// Of a sliding window, where it is another than the stream's, in milliseconds.
    private(set) var span: Int64?
    /// Whether what it reads of a value may throw.
    let mayThrow: Bool

    private init(
        _ name: String, _ kind: Kind, number: @escaping @Sendable (Value) throws -> Double? = { _ in nil },
        text: @escaping @Sendable (Value) throws -> String? = { _ in nil }, mayThrow: Bool = false
    ) {
        self.mayThrow = mayThrow
        self.name = name
        self.kind = kind
        self.number = number
        self.text = text
    }

    /// How many values there are.
    public static func count(_ name: String = "count") -> Measure { Measure(name, .count) }

    /// A measure of numbers; missing ones (nil, NaN) are left out.
    public static func of<Failure: Error>(
        _ kind: Kind, _ name: String, _ number: @escaping @Sendable (Value) throws(Failure) -> Double?
    ) -> Measure { Measure(name, kind, number: number, mayThrow: Failure.self != Never.self) }

    /// How many different texts there are.
    public static func distinct<Failure: Error>(
        _ name: String, _ text: @escaping @Sendable (Value) throws(Failure) -> String?
    ) -> Measure { Measure(name, .distinct, text: text, mayThrow: Failure.self != Never.self) }

    /// The most frequent texts with their counts.
    public static func top<Failure: Error>(
        _ count: Int, _ name: String, _ text: @escaping @Sendable (Value) throws(Failure) -> String?
    ) -> Measure { Measure(name, .top(count), text: text, mayThrow: Failure.self != Never.self) }

    /// The same over a window of its own length: only of sliding windows.
    public func over(milliseconds: Int64) -> Measure {
        precondition(milliseconds > 0, "a window has a size")
        var measure = self
        measure.span = milliseconds
        return measure
    }

    /// Its name, what it is, and over what.
    var settings: String { "\(name): \(kind)" + (span.map { " over \($0) ms" } ?? "") }

    var isOfTexts: Bool {
        switch kind {
        case .distinct, .top: true
        default: false
        }
    }

    /// What one value adds to the measure; nil where it adds nothing.
    func contribution(_ value: Value) throws -> MeasureInput? {
        if kind == .count { return .one }
        if isOfTexts { return try text(value).map { .text($0) } }
        guard let number = try number(value), !number.isNaN else { return nil }
        return .number(number)
    }
}

enum MeasureInput: Sendable {
    case one
    case number(Double)
    case text(String)
}

/// What is known of a measure in one pane: it can be added to and put together, in any order, with the same bits.
enum MeasureState: StateValue, Sendable {
    case count(Int64)
    case sum(ExactSum, count: Int64)
    case moments(Moments)
    case extreme(Double?)
    /// Oldest or newest value.
    case edge(Double?)
    case distinct(DistinctSketch)
    case histogram(LogHistogram)
    case top([StateKey: Int64])

    init<Value>(_ measure: Measure<Value>) {
        self =
            switch measure.kind {
            case .count: .count(0)
            case .sum, .mean: .sum(ExactSum(), count: 0)
            case .variance, .stddev: .moments(Moments())
            case .min, .max: .extreme(nil)
            case .first, .last: .edge(nil)
            case .distinct: .distinct(DistinctSketch())
            case .quantile: .histogram(LogHistogram())
            case .top: .top([:])
            }
    }

    /// Values come in the order of their times.
    mutating func add<Value>(_ input: MeasureInput, _ measure: Measure<Value>) {
        switch (self, input) {
        case (.count(let count), _): self = .count(count + 1)
        case (.sum(var sum, let count), .number(let number)):
            self = .count(0)
            sum.add(number)
            self = .sum(sum, count: count + 1)
        case (.moments(var moments), .number(let number)):
            self = .count(0)
            moments.add(number)
            self = .moments(moments)
        case (.extreme(let known), .number(let number)):
            self = .extreme(MeasureState.further(known, number, measure.kind == .min))
        case (.edge(let known), .number(let number)):
            self = .edge(measure.kind == .first ? known ?? number : number)
        case (.distinct(var sketch), .text(let text)):
            self = .count(0)
            sketch.add(text)
            self = .distinct(sketch)
        case (.histogram(var histogram), .number(let number)):
            self = .count(0)
            histogram.add(number)
            self = .histogram(histogram)
        case (.top(var counts), .text(let text)):
            self = .count(0)
            counts[StateKey(text), default: 0] += 1
            self = .top(counts)
        default: break
        }
    }

    private static func further(_ left: Double?, _ right: Double?, _ isLeast: Bool) -> Double? {
        guard let left, let right else { return left ?? right }
        return isLeast ? Swift.min(left, right) : Swift.max(left, right)
    }

    /// Takes in a pane that lies behind this one.
    mutating func merge<Value>(_ later: MeasureState, _ measure: Measure<Value>) {
        switch (self, later) {
        case (.count(let one), .count(let other)): self = .count(one + other)
        case (.sum(var sum, let one), .sum(let more, let other)):
            sum.merge(more)
            self = .sum(sum, count: one + other)
        case (.moments(var moments), .moments(let more)):
            moments.merge(more)
            self = .moments(moments)
        case (.extreme(let one), .extreme(let other)):
            self = .extreme(MeasureState.further(one, other, measure.kind == .min))
        case (.edge(let one), .edge(let other)): self = .edge(measure.kind == .first ? one ?? other : other ?? one)
        case (.distinct(var sketch), .distinct(let more)):
            sketch.merge(more)
            self = .distinct(sketch)
        case (.histogram(var histogram), .histogram(let more)):
            histogram.merge(more)
            self = .histogram(histogram)
        case (.top(let one), .top(let other)): self = .top(one.merging(other, uniquingKeysWith: +))
        default: break
        }
    }

    /// null where there is nothing to tell.
    func result<Value>(_ measure: Measure<Value>) -> JSON {
        switch self {
        case .count(let count): return .int(count)
        case .sum(let sum, let count):
            if count == 0 { return .null }
            return MeasureState.json(measure.kind == .mean ? sum.value / Double(count) : sum.value)
        case .moments(let moments):
            let variance = moments.variance(sample: true)
            return MeasureState.json(measure.kind == .stddev ? variance.map { $0.squareRoot() } : variance)
        case .extreme(let value), .edge(let value): return MeasureState.json(value)
        case .distinct(let sketch): return .double(sketch.value)
        case .histogram(let histogram):
            guard case .quantile(let share) = measure.kind else { return .null }
            return MeasureState.json(histogram.quantile(share))
        case .top(let counts):
            guard case .top(let limit) = measure.kind else { return .null }
            return MeasureState.ranking(counts, limit)
        }
    }

    /// null of what is no number; infinities are texts, as JSON has none.
    static func json(_ value: Double?) -> JSON {
        guard let value, !value.isNaN else { return .null }
        return value.isFinite ? .double(value) : .string("\(value)")
    }

    /// The most frequent first; of equals the one that comes first by its bytes.
    static func ranking(_ counts: [StateKey: Int64], _ limit: Int) -> JSON {
        let sorted = counts.sorted {
            $0.value == $1.value ? $0.key < $1.key : $0.value > $1.value
        }
        return .array(sorted.prefix(limit).map { .array([.string($0.key.text), .int($0.value)]) })
    }

    func encode(into writer: inout ByteWriter) {
        switch self {
        case .count(let count):
            writer.append(UInt8(0))
            writer.append(little: count)
        case .sum(let sum, let count):
            writer.append(UInt8(1))
            sum.encode(into: &writer)
            writer.append(little: count)
        case .moments(let moments):
            writer.append(UInt8(2))
            moments.encode(into: &writer)
        case .extreme(let value), .edge(let value):
            if case .extreme = self { writer.append(UInt8(3)) } else { writer.append(UInt8(4)) }
            writer.append(UInt8(value == nil ? 0 : 1))
            writer.append(value ?? 0)
        case .distinct(let sketch):
            writer.append(UInt8(5))
            sketch.encode(into: &writer)
        case .histogram(let histogram):
            writer.append(UInt8(6))
            histogram.encode(into: &writer)
        case .top(let counts):
            writer.append(UInt8(7))
            writer.append(little: UInt32(counts.count))
            for (key, count) in counts.sorted(by: { $0.key < $1.key }) {
                writer.append(sized: key.text)
                writer.append(little: count)
            }
        }
    }

    init(decoding reader: inout ByteReader) throws(BaseError) {
        switch try reader.byte() {
        case 0: self = .count(try reader.little())
        case 1: self = .sum(try ExactSum(decoding: &reader), count: try reader.little())
        case 2: self = .moments(try Moments(decoding: &reader))
        case let kind where kind == 3 || kind == 4:
            let isThere = try reader.byte() == 1
            let value = try reader.double()
            self = kind == 3 ? .extreme(isThere ? value : nil) : .edge(isThere ? value : nil)
        case 5: self = .distinct(try DistinctSketch(decoding: &reader))
        case 6: self = .histogram(try LogHistogram(decoding: &reader))
        case 7:
            var counts: [StateKey: Int64] = [:]
            for _ in 0..<(try reader.little(UInt32.self)) {
                let text = try reader.sizedText()
                counts[StateKey(text)] = try reader.little()
            }
            self = .top(counts)
        default: throw BaseError("bad-state", "a measure of an unknown kind", fault: .headrace)
        }
    }
}
