import Base
import Catalog
import Datasets
import Dispatch
import EventLog
import Features
import Foundation
import RecordFormat
import Streams

/// Makes the rows of a dataset from the log: the label events, and the features of a service as of each of them.
struct DatasetBuild {
    let log: any EventLog
    let workspace: CompiledWorkspace
    let catalog: FeatureCatalog
    let request: DatasetRequest
    /// Where every partition that is read ends, fixed when the build began.
    private(set) var ends: [TopicPartition: Int64] = [:]
    var notices: [String] = []

    static let idColumn = "event_id"
    static let timeColumn = "event_time"

    struct Result {
        let table: DatasetTable
        /// Columns of the labels, which classes are looked for in.
        let labels: [String]
        let plan: FeaturePlan
    }

    init(log: any EventLog, workspace: CompiledWorkspace, catalog: FeatureCatalog, request: DatasetRequest) {
        (self.log, self.workspace, self.catalog, self.request) = (log, workspace, catalog, request)
    }

    mutating func run() throws -> Result {
        let plan = try catalog.plan(service: request.service, features: request.features)
        var join = PointInTimeJoin(plan: plan, rule: request.isEventTimeOnly ? .eventTime : .known)
        for topic in join.topics + (request.labels.map { [$0] } ?? []) {
            for partition in 0..<log.partitions(of: topic) where ends[TopicPartition(topic, partition)] == nil {
                let place = TopicPartition(topic, partition)
                ends[place] = try log.offsets(place).upperBound
            }
        }
        let order = try AppendOrder(log, ends, isNeeded: !request.isEventTimeOnly)
        let rows = try read(&join, plan, order)
        var joined = JoinRows()
        (joined.times, joined.places, joined.keys) = (rows.times, rows.places, rows.keys)
        for name in plan.requestNames { joined.requests[name] = try rows.values(name) }
        let finished = try join.join(joined)
        let features = finished.columns
        if finished.failures > 0 {
            notices.append(
                "\(finished.failures) derived values cannot be worked out, first \(finished.firstFailure ?? "")")
        }
        var columns = [
            DatasetColumn(name: DatasetBuild.idColumn, values: .texts(rows.ids)),
            DatasetColumn(name: DatasetBuild.timeColumn, values: .moments(rows.times)),
        ]
        for name in plan.keyNames {
            let keys = rows.keys[name] ?? []
            columns.append(
                DatasetColumn(name: name, values: .texts(keys.map { $0 ?? "" }), missing: keys.map { $0 == nil }))
        }
        let taken = Set(columns.map(\.name))
        let labels = rows.columns.filter { !taken.contains($0.name) }
        columns += labels
        for feature in features { columns.append(DatasetBuild.column(feature)) }
        var names: Set<String> = request.split == nil ? [] : [DatasetSplit.column]
        if let repeated = columns.first(where: { !names.insert($0.name).inserted })?.name {
            throw DatasetsError(
                "name-collision",
                "two columns would be called '\(repeated)': a label event has a member of that name; name the members that are wanted with 'fields' (--field), without it"
            )
        }
        // What is derived is missing for reasons of its own.
        noteEmpty(features.filter { catalog.derived[$0.reference.view] == nil }, rows.times.count)
        return Result(table: DatasetTable(columns: columns), labels: labels.map(\.name), plan: plan)
    }

    private static func column(_ feature: FeatureColumn) -> DatasetColumn {
        let name = "\(feature.reference.view)__\(feature.reference.feature)"
        guard !feature.texts.isEmpty else {
            return DatasetColumn(
                name: name, values: .doubles(feature.values.map { $0.isNaN ? 0 : $0 }),
                missing: feature.values.map(\.isNaN))
        }
        let texts = feature.values.indices.map { feature.texts[$0] ?? CELValue.double(feature.values[$0]).label }
        return DatasetColumn(name: name, values: .texts(texts.map { $0 ?? "" }), missing: texts.map { $0 == nil })
    }

    /// A feature that no row has is mostly a mistake in what is asked.
    private mutating func noteEmpty(_ features: [FeatureColumn], _ count: Int) {
        guard count > 0 else { return notices.append("there are no rows: no label event lies between 'from' and 'to'") }
        let empty = features.filter { !$0.statuses.contains(.present) }.map(\.reference.text)
        guard !empty.isEmpty else { return }
        notices.append(
            "no row has a value of \(empty.prefix(5).joined(separator: ", "))"
                + (empty.count > 5 ? " and \(empty.count - 5) more" : "")
                + (request.isEventTimeOnly
                    ? ""
                    : ": nothing of it was known before its row; history that was imported in another order is joined with --event-time-only")
        )
    }

    // MARK: Events

    /// Reads the rows and every topic of the join's views, several at a time.
    private mutating func read(
        _ join: inout PointInTimeJoin, _ plan: FeaturePlan, _ order: AppendOrder
    ) throws -> LabelRows {
        var places: [TopicPartition] = []
        for topic in join.topics {
            for partition in 0..<log.partitions(of: topic) { places.append(TopicPartition(topic, partition)) }
        }
        let all = places
        let readers = Monitor<[Int: Swift.Result<(PointInTimeJoin.Reader, Int), any Error>]>([:])
        let fixed = (log: log, readings: workspace.readings, ends: ends, join: join)
        let build = Monitor(self)
        let labels = Monitor<Swift.Result<LabelRows, any Error>?>(nil)
        DispatchQueue.concurrentPerform(iterations: all.count + 1) { turn in
            // The rows first: they take longest.
            guard turn > 0 else {
                let rows = Swift.Result { try build.withLock { try $0.labelRows(plan, order) } }
                return labels.withLock { $0 = rows }
            }
            let number = turn - 1
            let result = Swift.Result {
                try DatasetBuild.read(
                    all[number], fixed.join.reader(of: all[number].topic), fixed.log,
                    fixed.readings[all[number].topic], to: fixed.ends[all[number]] ?? 0, order)
            }
            readers.withLock { $0[number] = result }
        }
        notices = build.withLock { $0.notices }
        guard let rows = try labels.withLock({ $0 })?.get() else { return LabelRows() }
        let done = readers.withLock { $0 }
        for (number, place) in places.enumerated() {
            guard let (reader, late) = try done[number]?.get() else { continue }
            join.take(reader)
            if late > 0 {
                notices.append(
                    "\(late) late events of \(place) are left out, as the fold leaves them out (a view's 'lateness' says which count)"
                )
            }
            if reader.failures > 0 {
                notices.append(
                    "\(reader.failures) events of \(place) cannot be read by a view, first \(reader.firstFailure ?? "")"
                )
            }
        }
        return rows
    }

    private static func read(
        _ place: TopicPartition, _ empty: PointInTimeJoin.Reader, _ log: any EventLog, _ reading: TopicReading?,
        to end: Int64, _ order: AppendOrder
    ) throws -> (PointInTimeJoin.Reader, Int) {
        var reader = empty
        var late = 0
        let places = order.places(of: place)
        let document = JSONDocument()
        // As a fold takes it: what is behind the progress of its own partition is late.
        var progress = PartitionProgress()
        try log.forEachEvent(place, to: end) { event in
            let parsed: Bool? = event.withData { raw in (try? document.parse(raw)) != nil }
            if event.isProgress {
                if parsed == true { progress.apply(document) }
                return true
            }
            guard let parsed else { return true }
            guard parsed else {
                reader.fail("\(place)@\(event.offset): the data is not JSON")
                return true
            }
            let turn = LateTurn(event.time, behind: progress)
            let taking = turn.map { reader.taking($0, of: event.time) } ?? reader.viewCount
            let isWritten = Instant.written.contains(event.time)
            if !isWritten || taking < reader.viewCount { late += 1 }
            guard isWritten, taking > 0 else { return true }
            do {
                try reading?.lift(document, stated: event.header(EventHeader.dataVersion))
            } catch {
                reader.fail("\(place)@\(event.offset): \(error)")
                return true
            }
            reader.add(
                document, time: event.time, place: try places.place(of: event.offset),
                knownTime: event.header(EventHeader.knownTime).flatMap { Instant($0) }, late: turn,
                position: "\(place)@\(event.offset)")
            return true
        }
        return (reader, late)
    }
}

/// In which order events of several partitions were appended.
struct AppendOrder: Sendable {
    private var sequences: [TopicPartition: (start: Int, list: [UInt64])] = [:]
    private let ranks: [TopicPartition: UInt64]
    private static let unknown = UInt64.max - 1

    /// - Parameter isNeeded: false when places need only tell events from each other.
    init(_ log: any EventLog, _ ends: [TopicPartition: Int64], isNeeded: Bool) throws {
        let sorted = ends.keys.sorted { $0.description < $1.description }
        ranks = Dictionary(uniqueKeysWithValues: sorted.enumerated().map { ($1, UInt64($0) << 48) })
        guard isNeeded else { return }
        guard let embedded = log as? EmbeddedLog else {
            throw DatasetsError(
                "no-order",
                "a log on Kafka does not tell in which order events of several partitions came, so it is not known what was known when; make the dataset by event time alone (--event-time-only)"
            )
        }
        // What retention took away needs no place.
        let starts = try sorted.map { Int(try log.offsets($0).lowerBound) }
        var lists = sorted.enumerated().map { number, place in
            Array(repeating: AppendOrder.unknown, count: max(0, Int(ends[place] ?? 0) - starts[number]))
        }
        try embedded.eachRun(of: sorted) { list, offset, sequence, count in
            let first = Int(offset) - starts[list]
            for at in max(0, first)..<max(0, first, min(first + count, lists[list].count)) {
                lists[list][at] = sequence + UInt64(at - first)
            }
        }
        for (number, place) in sorted.enumerated() { sequences[place] = (starts[number], lists[number]) }
    }

    /// The order of one partition's events, to be asked for each of them.
    func places(of partition: TopicPartition) -> Places {
        let known = sequences[partition]
        return Places(
            partition: partition, start: known?.start ?? 0, sequences: known?.list ?? [], rank: ranks[partition] ?? 0)
    }

    struct Places: Sendable {
        let partition: TopicPartition
        let start: Int
        let sequences: [UInt64]
        let rank: UInt64

        /// Unknown where damage took what said it: nothing else tells what was known by then.
        func place(of offset: Int64) throws(DatasetsError) -> UInt64 {
            let at = Int(offset) - start
            guard sequences.indices.contains(at) else { return rank | UInt64(offset) }
            guard sequences[at] != AppendOrder.unknown else {
                throw DatasetsError(
                    "no-order",
                    "it is lost when \(partition)@\(offset) came (a damaged file of the log; `headrace log verify` names it), so it is not known what was known when: restore it from a backup, or make the dataset by event time alone (--event-time-only)",
                    fault: .world)
            }
            return sequences[at]
        }
    }
}
