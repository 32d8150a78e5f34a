import Base
import Dispatch
import Streams

/// Rows that features are joined to: each asks at a moment, and knows what was appended before its own event.
package struct JoinRows: Sendable {
    /// Event times in milliseconds.
    package var times: [Int64] = []
    /// The rows' own places in the order in which all events were appended; `.max` for a row that is no event.
    package var places: [UInt64] = []
    /// Keys by the name they are given under.
    package var keys: [String: [String?]] = [:]
    /// What rows bring along for derived views, by name.
    package var requests: [String: [CELValue]] = [:]

    package init() {}
}

/// The features of a plan as of each row: of event time *and* of what was known.
///
/// An event counts for a row when its time is at or before the row's, and when it was known by then: appended before the
/// row's own event, or, where it says itself when it became known (`knowntime`), known at or before the row's time. With
/// `.eventTime` only times count. The row's own event never counts. Events of one time are folded in the order of a fold: by
/// partition and offset, what came late behind the others. What a fold of the view would have told of the same events at that
/// moment is told here, to the bit.
package struct PointInTimeJoin: Sendable {
    package enum Rule: String, Sendable {
        /// By event time and by what was known.
        case known
        case eventTime
    }

    package let plan: FeaturePlan
    package let rule: Rule
    private var events: [ViewEvents]

    package init(plan: FeaturePlan, rule: Rule) {
        self.plan = plan
        self.rule = rule
        events = plan.reads.map { ViewEvents(columnCount: $0.view.columns.count) }
    }

    /// Views of the plan that read a topic, by their number.
    package func views(of topic: String) -> [Int] { plan.reads.indices.filter { plan.reads[$0].view.topic == topic } }

    package var topics: [String] {
        var seen: Set<String> = []
        return plan.reads.map(\.view.topic).filter { seen.insert($0).inserted }
    }

    /// The events of one view by partition and offset, as columns.
    struct ViewEvents: Sendable {
        let columnCount: Int
        var numbers: [ExactText: Int32] = [:]
        var keys: [Int32] = []
        var times: [Int64] = []
        var places: [UInt64] = []
        /// When an event became known, of those that say so themselves, by their number.
        var knownTimes: [Int: Int64] = [:]
        /// When a fold took events that came late, by their number.
        var lateTurns: [Int: LateTurn] = [:]
        var values: [Double] = []
        /// Texts in place of numbers, by the number of their event.
        var texts: [Int: [String?]] = [:]

        init(columnCount: Int) { self.columnCount = columnCount }

        mutating func add(
            _ key: String, time: Int64, place: UInt64, knownTime: Int64?, late: LateTurn?, _ row: [Double],
            _ texts: [String?]
        ) {
            let exact = ExactText(key)
            let number = numbers[exact] ?? Int32(numbers.count)
            if number == numbers.count { numbers[exact] = number }
            if let knownTime { knownTimes[keys.count] = knownTime }
            if let late { lateTurns[keys.count] = late }
            if !texts.isEmpty { self.texts[keys.count] = texts }
            keys.append(number)
            times.append(time)
            places.append(place)
            values.append(contentsOf: row)
        }
    }

    /// What reads one partition, apart from all others.
    package struct Reader: Sendable {
        fileprivate let views: [(number: Int, view: FeatureView)]
        fileprivate var events: [ViewEvents]
        private var row: [Double] = []
        private var texts: [String?] = []
        /// Events that a view could not read, and why the first could not.
        package private(set) var failures = 0
        package private(set) var firstFailure: String?

        fileprivate init(_ views: [(number: Int, view: FeatureView)]) {
            self.views = views
            events = views.map { ViewEvents(columnCount: $0.view.columns.count) }
        }

        /// How many views take an event that is so late.
        package func taking(_ late: LateTurn, of time: Instant) -> Int {
            views.count { $0.view.takes(lag: late.lag(of: time)) }
        }
        package var viewCount: Int { views.count }

        /// Notes an event that cannot be read at all.
        package mutating func fail(_ reason: String) {
            failures += 1
            firstFailure = firstFailure ?? reason
        }

        /// Takes an event; one that a view cannot read sinks nothing but itself.
        /// - Parameter late: of an event that came late; views that do not allow for it leave it out.
        package mutating func add(
            _ document: JSONDocument, time: Instant, place: UInt64, knownTime: Instant?, late: LateTurn? = nil,
            position: String
        ) {
            var scope = CELContext(document: document)
            let lag = late?.lag(of: time)
            for (at, (_, view)) in views.enumerated() where view.takes(lag: lag) {
                do {
                    guard let key = try view.read(&scope, row: &row, texts: &texts) else { continue }
                    events[at].add(
                        key, time: time.milliseconds, place: place, knownTime: knownTime?.milliseconds, late: late,
                        row, texts)
                } catch {
                    failures += 1
                    firstFailure = firstFailure ?? "\(view.name) at \(position): \(error)"
                }
            }
        }
    }

    package func reader(of topic: String) -> Reader {
        Reader(views(of: topic).map { ($0, plan.reads[$0].view) })
    }

    /// Takes what a reader has read of a partition; partitions come in their order.
    package mutating func take(_ reader: Reader) {
        for (at, (number, _)) in reader.views.enumerated() {
            let part = reader.events[at]
            guard !events[number].keys.isEmpty else {
                events[number] = part
                continue
            }
            var names = [String](repeating: "", count: part.numbers.count)
            for (name, index) in part.numbers { names[Int(index)] = name.text }
            for index in part.keys.indices {
                let from = index * part.columnCount
                events[number].add(
                    names[Int(part.keys[index])], time: part.times[index], place: part.places[index],
                    knownTime: part.knownTimes[index], late: part.lateTurns[index],
                    Array(part.values[from..<from + part.columnCount]),
                    part.texts[index] ?? [])
            }
        }
    }

    /// Joins; the answer's columns are in the order of the rows.
    package func join(_ rows: JoinRows) throws(FeaturesError) -> FinishedFeatures {
        for read in plan.reads where rows.keys[read.keyName] == nil {
            throw FeaturesError(
                "missing-entity",
                "the keys of '\(read.view.name)' are wanted as '\(read.keyName)'; the rows have \(rows.keys.keys.sorted().joined(separator: ", "))"
            )
        }
        let done = Monitor<[Int: [FeatureColumn]]>([:])
        // Views do not touch each other.
        DispatchQueue.concurrentPerform(iterations: plan.reads.count) { number in
            let columns = ViewJoin(read: plan.reads[number], events: events[number], rule: rule, rows: rows).columns()
            done.withLock { $0[number] = columns }
        }
        var columns = plan.columns.map { FeatureColumn(reference: $0) }
        for (number, made) in done.withLock({ $0 }) {
            for (place, (_, column)) in plan.reads[number].features.enumerated() {
                columns[column].take(made[place])
            }
        }
        return try plan.finish(columns, count: rows.times.count) { rows.requests[$0] }
    }
}

extension FeatureColumn {
    /// The values of another column of the same feature.
    mutating func take(_ other: FeatureColumn) {
        (values, texts, statuses, times) = (other.values, other.texts, other.statuses, other.times)
    }
}
