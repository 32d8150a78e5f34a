import Base
import Catalog
import Streams

package enum FeaturesModule {}
/// Errors of feature views and questions.
package typealias FeaturesError = Failure<FeaturesModule>

/// What is computed over the events of one key.
package enum AggregateFunction: String, Sendable, CaseIterable {
    case count, sum, mean, min, max
    /// Over n - 1; missing of fewer than two values.
    case variance, stddev
    /// Different values, texts too; exact.
    case distinct
    /// Within `LogHistogram.relativeError`; takes `q`.
    case quantile
    /// Of the oldest event in the window, missing when it is missing there.
    case first
    /// Of the newest event, missing when it is missing there.
    case last
    /// The `n` newest values of the window, a feature each: NAME_1 is the newest.
    case lastN
    /// The `k` texts or numbers that stand most often in the window, a feature each: NAME_1 stands most often.
    case topK
    /// Since the newest event.
    case secondsSince, hoursSince

    var measure: WindowMeasure {
        switch self {
        case .count: .count
        case .sum: .sum
        case .mean: .mean
        case .min: .min
        case .max: .max
        case .variance: .variance
        case .stddev: .stddev
        case .distinct: .distinct
        case .quantile: .quantile
        case .first: .first
        case .last: .last
        case .lastN: .nthNewest
        case .topK: .top
        case .secondsSince: .secondsSince
        case .hoursSince: .hoursSince
        }
    }

    /// The member that says how many features it makes; nil of those that make one.
    var many: String? { self == .lastN ? "n" : self == .topK ? "k" : nil }
    /// Features that one aggregate may make.
    static let manyLimit = 100

    var needsWindow: Bool { ![.last, .secondsSince, .hoursSince].contains(self) }
    var needsValue: Bool { ![.count, .secondsSince, .hoursSince].contains(self) }
}

/// What is read of every event for aggregates.
struct ValueColumn: Sendable {
    enum Kind: Sendable {
        case number
        /// The value's identity is kept in place of a number: 53 bits of a hash of its text, which a double holds exactly.
        case identity
        /// The same, and the text is kept with it.
        case category
        /// A number, or a text where nothing but `last` looks; a text is kept of the newest event alone.
        case latest
    }

    let program: CELProgram
    let kind: Kind

    /// NaN where the value is missing.
    func value(_ scope: inout CELContext) throws -> Double {
        if kind == .identity { return try category(&scope).number }
        if let number = try program.number(&scope) { return number }
        try requireMissing(try program.evaluateOptional(&scope))
        return .nan
    }

    /// For a column of kind `category`: the label with the number that stands for it.
    func category(_ scope: inout CELContext) throws -> (number: Double, text: String?) {
        guard var text = try program.label(&scope) else { return (.nan, nil) }
        return (Double(text.withUTF8 { stableHash(UnsafeRawBufferPointer($0), seed: 3) } >> 11), text)
    }

    /// For a column of kind `latest`: NaN beside a text.
    func latest(_ scope: inout CELContext) throws -> (number: Double, text: String?) {
        if let number = try program.number(&scope) { return (number, nil) }
        let value = try program.evaluateOptional(&scope)
        if case .string(let text) = value { return (.nan, text) }
        try requireMissing(value)
        return (.nan, nil)
    }

    private func requireMissing(_ value: CELValue?) throws {
        switch value {
        case nil, .null: return
        case .double(let number) where number.isNaN: return
        case .some(let value):
            throw FeaturesError(
                "not-a-number",
                "'\(program.source)' is a \(value.typeName) where a number is wanted"
                    + (kind == .latest ? " (or a text)" : "; texts can be had by last, latest, distinct and topK"))
        }
    }
}

/// One feature of a view.
package struct Aggregate: Sendable {
    package let name: String
    package let function: AggregateFunction
    /// Index of the value column; nil for functions that only look at times.
    package let column: Int?
    /// Length of the window (t - span, t], in milliseconds; nil for functions of the newest event.
    package let span: Int64?
    /// Which quantile, from 0 to 1.
    let share: Double
    /// Of those that make several features, which of them, from 1 on.
    var rank = 0
}

/// The aggregates of a view as they are read, with the distinct columns and windows that they share.
private struct AggregateList {
    var columns: [ValueColumn] = []
    var aggregates: [Aggregate] = []

    private mutating func column(_ program: CELProgram, _ kind: ValueColumn.Kind) -> Int {
        let same = columns.firstIndex {
            $0.program.source == program.source
                && ($0.kind == kind
                    || ![.identity, .category].contains($0.kind) && ![.identity, .category].contains(kind))
        }
        if let same {
            // Where anything else needs a number, a text is a mistake, so the newest event has none either.
            if kind == .number { columns[same] = ValueColumn(program: program, kind: kind) }
            return same
        }
        columns.append(ValueColumn(program: program, kind: kind))
        return columns.count - 1
    }

    mutating func addLatest(_ name: String, _ program: CELProgram) {
        aggregates.append(
            Aggregate(name: name, function: .last, column: column(program, .latest), span: nil, share: 0))
    }

    mutating func read(_ item: inout DefinitionReader) throws(CatalogError) {
        let name = try item.legalName()
        let text = try item.string("function")
        guard let function = AggregateFunction(rawValue: text) else {
            let known = AggregateFunction.allCases.map(\.rawValue).joined(separator: ", ")
            throw item.failure("there is no function '\(text)'; known: \(known)", at: "function")
        }
        let program = try item.expression("of")
        let span = try item.optionalSpan("window")
        let share = try item.optionalDouble("q")
        var count: Int?
        if let member = function.many { count = try item.int(member, 1...AggregateFunction.manyLimit) }
        try item.finish()
        guard (share != nil) == (function == .quantile), (0...1).contains(share ?? 0) else {
            throw item.failure(
                function == .quantile
                    ? "'quantile' needs 'q' from 0 to 1, 0.5 for the median" : "'\(text)' takes no 'q'")
        }
        guard (program != nil) == function.needsValue else {
            throw item.failure(function.needsValue ? "'\(text)' needs 'of'" : "'\(text)' takes no 'of'")
        }
        guard (span != nil) == function.needsWindow else {
            throw item.failure(function.needsWindow ? "'\(text)' needs 'window'" : "'\(text)' takes no 'window'")
        }
        let kind: ValueColumn.Kind =
            switch function {
            case .distinct: .identity
            case .topK: .category
            case .last: .latest
            default: .number
            }
        let place = program.map { self.column($0, kind) }
        for rank in 1...(count ?? 1) {
            aggregates.append(
                Aggregate(
                    name: count == nil ? name : "\(name)_\(rank)", function: function, column: place, span: span,
                    share: share ?? 0, rank: count == nil ? 0 : rank))
        }
    }

    var plan: WindowPlan {
        var plan = WindowPlan(columnCount: columns.count)
        for aggregate in aggregates {
            plan.read(
                aggregate.function.measure, column: aggregate.column, span: aggregate.span, share: aggregate.share,
                rank: aggregate.rank)
        }
        return plan
    }
}

/// A declared feature view: which events, keyed how, aggregated into which features.
package final class FeatureView: Sendable {
    package static let kind = "FeatureView"

    package let name: String
    package let topic: String
    package let description: String
    package let owner: String
    package let tags: [String]
    /// Name of what a key stands for; nil where the view declares none.
    package let entity: String?
    /// How long after its newest event a key's features may be used, in milliseconds; nil is for ever.
    package let timeToLive: Int64?
    /// How far behind its partition's progress an event may be and still count, in milliseconds; 0 where none that is late does.
    package let lateness: Int64
    let key: CELProgram
    let filter: CELProgram?
    /// Distinct value expressions.
    let columns: [ValueColumn]
    package let aggregates: [Aggregate]
    package let plan: WindowPlan
    private let indices: [String: Int]
    /// Of its definition: views of one digest are the same.
    package let digest: Digest

    package init(_ definition: Definition) throws(CatalogError) {
        digest = definition.digest
        var reader = try DefinitionReader(definition)
        name = try reader.legalName()
        topic = try reader.string("topic")
        description = try reader.optionalString("description") ?? ""
        owner = try reader.optionalString("owner") ?? ""
        tags = try reader.texts("tags")
        entity = try reader.optionalString("entity")
        timeToLive = try reader.optionalSpan("ttl")
        lateness = try reader.optionalSpan("lateness") ?? 0
        key = try reader.requiredExpression("key")
        filter = try reader.expression("filter")
        var list = AggregateList()
        for var item in try reader.readers("aggregates") { try list.read(&item) }
        if let latest = reader.value("latest") {
            guard let members = latest.object else {
                throw reader.failure("'latest' maps feature names to expressions", at: "latest")
            }
            for (name, source) in JSON.sorted(members) {
                guard TopicName.isLegal(name) else { throw reader.badName(name, at: "latest") }
                do {
                    list.addLatest(name, try CELProgram(source.string ?? ""))
                } catch {
                    throw reader.failure("latest.\(name): \(error.message)", at: "latest", code: "bad-expression")
                }
            }
        }
        try reader.finish()
        guard !list.aggregates.isEmpty else { throw reader.failure("a view needs 'aggregates' or 'latest'") }
        var indices: [String: Int] = [:]
        for (index, aggregate) in list.aggregates.enumerated() {
            guard indices.updateValue(index, forKey: aggregate.name) == nil else {
                throw reader.failure("the feature '\(aggregate.name)' stands twice")
            }
        }
        aggregates = list.aggregates
        columns = list.columns
        plan = list.plan
        self.indices = indices
    }

    /// Everything it evaluates over its topic's data.
    package var expressions: [CELProgram] { [key, filter].compactMap { $0 } + columns.map(\.program) }

    package func index(of feature: String) -> Int? { indices[feature] }

    /// Under which name a key is given when features are asked for, where no entity says otherwise: the last member of the
    /// path that is the key; nil when the key is worked out.
    package var keyName: String? {
        guard let use = key.uses.first, key.uses.count == 1, !use.isTest,
            key.source == ([CELProgram.documentName] + use.path).joined(separator: ".")
        else { return nil }
        return use.path.last
    }

    /// Whether features of a key whose newest event was then may still be used at a moment: up to and including its end.
    package func isFresh(_ lastTime: Int64, at now: Int64) -> Bool {
        guard let timeToLive else { return true }
        return lastTime >= now - timeToLive
    }

    /// Whether an event that is so far behind its partition's progress counts; nil is in time.
    package func takes(lag: Int64?) -> Bool { lag.map { $0 <= lateness && lateness > 0 } ?? true }

    /// The longest window, in milliseconds: what a reader of a value must know to find its inputs again.
    package var longestSpan: Int64 { plan.longestSpan }
}
