import Base
import Catalog
import Datasets
import EventLog
import Features
import RecordFormat

/// The rows that features are joined to, in the order of their times.
struct LabelRows {
    var ids: [String] = []
    var times: [Int64] = []
    var places: [UInt64] = []
    var keys: [String: [String?]] = [:]
    private var builders: [ColumnBuilder] = []
    /// Their numbers by name.
    private var numbers: [String: Int] = [:]
    /// What was made of the last member at each place: rows mostly have the same members in the same order.
    private var guesses: [Guess] = []
    private(set) var columns: [DatasetColumn] = []
    private static let named = 20
    /// Members that are lists or objects, the first of them.
    private(set) var skipped: Set<String> = []

    private struct Guess {
        /// As it stands in the text, without escapes.
        let key: ArraySlice<UInt8>
        let name: String
        let isLeft: Bool
        let isInteger: Bool
        var column: Int?
    }

    mutating func add(id: String, time: Int64, place: UInt64) {
        ids.append(id)
        times.append(time)
        places.append(place)
    }

    /// Members that stood twice in their row (names are the same when they look the same); the first counts.
    private(set) var twice = 0

    /// Takes a value of the newest row.
    mutating func add(_ name: String, _ value: CELValue, isInteger: Bool) throws(DatasetsError) {
        add(value, to: try number(of: name, isInteger: isInteger))
    }

    private mutating func number(of name: String, isInteger: Bool) throws(DatasetsError) -> Int {
        if let known = numbers[name] { return known }
        guard builders.count < DatasetRequest.columnLimit else {
            throw DatasetsError(
                "too-many-columns",
                "the rows have more than \(DatasetRequest.columnLimit) different members; name those that are wanted with 'fields'"
            )
        }
        numbers[name] = builders.count
        builders.append(ColumnBuilder(name: name, isInteger: isInteger, rows: ids.count - 1))
        return builders.count - 1
    }

    private mutating func add(_ value: CELValue, to column: Int) {
        if !builders[column].add(value, at: ids.count - 1) { twice += 1 }
    }

    /// Takes the members of an object as columns.
    mutating func add(
        _ document: JSONDocument, without left: Set<String>, only fields: Set<String>?, integers: Set<String>
    ) throws(DatasetsError) {
        var place = 0
        let taken = Result {
            try document.forEachMember(0) { key, node in
                if place == guesses.count || !document.isPlain(key, guesses[place].key) {
                    let name = document.string(key) ?? ""
                    let guess = Guess(
                        key: ArraySlice(Array(document.raw(key))), name: name,
                        isLeft: left.contains(name) || fields?.contains(name) == false,
                        isInteger: integers.contains(name), column: numbers[name])
                    if place == guesses.count { guesses.append(guess) } else { guesses[place] = guess }
                }
                try take(document, node, place)
                place += 1
            }
        }
        if case .failure(let error) = taken { throw error as? DatasetsError ?? DatasetsError("internal", "\(error)") }
    }

    /// Takes the value of a member whose guess is right.
    private mutating func take(_ document: JSONDocument, _ node: Int, _ place: Int) throws(DatasetsError) {
        guard !guesses[place].isLeft else { return }
        let kind = document.kind(node)
        guard kind != .array, kind != .object else {
            if skipped.count < LabelRows.named { skipped.insert(guesses[place].name) }
            return
        }
        let guess = guesses[place]
        let column: Int
        if let known = guess.column {
            column = known
        } else {
            column = try number(of: guess.name, isInteger: guess.isInteger)
        }
        guesses[place].column = column
        let whole = kind == .number ? document.int(node) : nil
        add(whole.map { .int($0) } ?? CELValue(document, node), to: column)
    }

    /// Puts the rows in the order of their times, at equal times as they came, and the columns in that of their names, so
    /// that no other order shows.
    mutating func finish() {
        columns = numbers.sorted { $0.key < $1.key }.map { _, number in
            builders[number].fill(ids.count)
            return builders[number].column
        }
        (builders, numbers, guesses) = ([], [:], [])
        guard times.indices.dropFirst().contains(where: { times[$0] < times[$0 - 1] }) else { return }
        let order = times.indices.sorted { times[$0] == times[$1] ? $0 < $1 : times[$0] < times[$1] }
        ids = order.map { ids[$0] }
        times = order.map { times[$0] }
        places = order.map { places[$0] }
        keys = keys.mapValues { list in order.map { list[$0] } }
        columns = columns.map { $0.rows(order) }
    }

    /// What the rows bring along under a name for derived features.
    func values(_ name: String) throws(DatasetsError) -> [CELValue] {
        if let column = columns.first(where: { $0.name == name }) {
            return (0..<column.count).map { row in
                guard !column.isMissing(row) else { return .null }
                switch column.values {
                case .doubles(let list): return .double(list[row])
                case .integers(let list): return .double(Double(list[row]))
                case .texts(let list): return .string(list[row])
                case .flags(let list): return .bool(list[row])
                case .moments(let list): return .instant(Instant(milliseconds: list[row]))
                }
            }
        }
        if let keys = keys[name] { return keys.map { $0.map { .string($0) } ?? .null } }
        throw DatasetsError(
            "missing-request",
            "a derived feature wants '\(name)' of every row, and no row has it; label events have it as a member, given rows as a column"
        )
    }

    /// Whether any row had that member.
    func hasColumn(_ name: String) -> Bool { numbers[name] != nil || skipped.contains(name) }

    /// Rows that ask of the same keys at the same moment as one before them.
    var repeated: Int {
        let lists = keys.keys.sorted().compactMap { keys[$0] }
        var count = 0
        var from = 0
        // They are in the order of their times: only those of one moment are compared.
        while from < times.count {
            var end = from + 1
            while end < times.count, times[end] == times[from] { end += 1 }
            if end - from > 1 { count += end - from - Set((from..<end).map { row in lists.map { $0[row] } }).count }
            from = end
        }
        return count
    }
}

extension DatasetBuild {
    mutating func labelRows(_ plan: FeaturePlan, _ order: AppendOrder) throws -> LabelRows {
        var rows = request.labels == nil ? try givenRows(plan) : try loggedRows(plan, order)
        rows.finish()
        let repeated = rows.repeated
        if rows.twice > 0 { notices.append("\(rows.twice) members stand twice in their event; the first counts") }
        if repeated > 0 { notices.append("\(repeated) rows ask of the same keys at the same moment as another") }
        if !rows.skipped.isEmpty {
            notices.append("left out, being lists or objects: \(rows.skipped.sorted().joined(separator: ", "))")
        }
        return rows
    }

    private func isAsked(_ time: Instant) -> Bool {
        (request.from.map { time >= $0 } ?? true) && (request.to.map { time < $0 } ?? true)
    }

    private func isSampled(_ id: String) -> Bool {
        request.sample.map { DatasetSplit.place(of: id, seed: request.seed &+ 1) < $0 } ?? true
    }

    private mutating func loggedRows(_ plan: FeaturePlan, _ order: AppendOrder) throws -> LabelRows {
        let topic = request.labels ?? ""
        guard let definition = workspace.topics.first(where: { $0.definition.name == topic })?.definition else {
            throw DatasetsError("unknown-topic", "the topic '\(topic)' is not declared")
        }
        // What is sealed says nothing, and would say something else after an erasure.
        let personal = Set((definition.personal?.fields ?? []).compactMap { $0.keys.first?.text })
        let fields = request.fields.map { Set($0).union(plan.requestNames) }
        if let field = fields?.intersection(personal).min() {
            throw DatasetsError("personal-field", "'\(topic)' declares '\(field)' personal; it cannot become a column")
        }
        let integers = DatasetBuild.integers(workspace.definitions.first { $0.key == "Topic/\(topic)" }?.body)
        let keyNames = plan.keyNames.map { (name: $0, key: JSONKey($0)) }
        let left = personal.union(plan.keyNames)
        var rows = LabelRows()
        var keys: [[String?]] = keyNames.map { _ in [] }
        let document = JSONDocument()
        var failures: (count: Int, first: String?) = (0, nil)
        let reading = workspace.readings[topic]
        for partition in 0..<log.partitions(of: topic) {
            let place = TopicPartition(topic, partition)
            let places = order.places(of: place)
            try log.forEachEvent(place, to: ends[place]) { event in
                guard !event.isProgress, isAsked(event.time), isSampled(event.id) else { return true }
                let parsed: Bool? = event.withData { raw in (try? document.parse(raw)) != nil }
                do {
                    guard parsed == true, document.kind(0) == .object else {
                        throw DatasetsError("no-object", "its data is no object")
                    }
                    try reading?.lift(document, stated: event.header(EventHeader.dataVersion))
                } catch {
                    failures.count += 1
                    failures.first = failures.first ?? "\(place)@\(event.offset): \(error)"
                    return true
                }
                guard rows.ids.count < DatasetRequest.rowLimit else {
                    throw DatasetsError(
                        "too-many-rows",
                        "a dataset may have \(DatasetRequest.rowLimit) rows; take fewer with 'from', 'to' or 'sample'")
                }
                rows.add(id: event.id, time: event.time.milliseconds, place: try places.place(of: event.offset))
                for (number, (_, key)) in keyNames.enumerated() {
                    keys[number].append(document.member(0, key).flatMap { CELValue.label(document, $0) })
                }
                try rows.add(document, without: left, only: fields, integers: integers)
                return true
            }
        }
        for (number, (name, _)) in keyNames.enumerated() { rows.keys[name] = keys[number] }
        if let first = failures.first {
            notices.append("\(failures.count) label events cannot be read, first \(first)")
        }
        for name in (request.fields ?? []).sorted()
        where !rows.ids.isEmpty && !rows.hasColumn(name) && !plan.keyNames.contains(name) {
            throw DatasetsError(
                "unknown-field", "no event of '\(topic)' has the member '\(name)' that 'fields' (--field) names")
        }
        for (name, _) in keyNames where !rows.ids.isEmpty && rows.keys[name]?.contains(where: { $0 != nil }) != true {
            throw DatasetsError(
                "missing-entity",
                "no event of '\(topic)' has the member '\(name)', by which '\(plan.views(keyedBy: name))' is read"
            )
        }
        return rows
    }

    /// Members that the topic's schema declares whole numbers.
    private static func integers(_ body: JSON?) -> Set<String> {
        let properties = body?["schema"]?["properties"]?.object ?? [:]
        return Set(
            properties.filter { _, type in
                let names = type["type"]?.array?.compactMap(\.string) ?? type["type"]?.string.map { [$0] } ?? []
                return names.contains("integer") && !names.contains("number")
            }.keys)
    }

    /// Rows that came with the request, by columns: keys, `event_timestamp`, and whatever comes along.
    private mutating func givenRows(_ plan: FeaturePlan) throws -> LabelRows {
        let lists = (request.entities?.object ?? [:]).compactMapValues(\.array)
        guard let stamps = lists["event_timestamp"], lists.count == request.entities?.object?.count,
            lists.values.allSatisfy({ $0.count == stamps.count })
        else {
            throw DatasetsError(
                "bad-entities",
                "the rows given ('entities', --entities) need a column 'event_timestamp' and one for each key, all of one length; they have \(lists.keys.sorted().joined(separator: ", "))"
            )
        }
        guard stamps.count <= DatasetRequest.entityLimit else {
            throw DatasetsError("bad-entities", "\(DatasetRequest.entityLimit) rows may be given")
        }
        for name in plan.keyNames where lists[name] == nil {
            throw DatasetsError(
                "missing-entity", "'entities' has no column '\(name)', by which '\(plan.views(keyedBy: name))' is read")
        }
        var rows = LabelRows()
        for name in plan.keyNames { rows.keys[name] = [] }
        let others = lists.keys.filter { name in
            name != "event_timestamp" && name != DatasetBuild.idColumn && !plan.keyNames.contains(name)
        }.sorted()
        for row in stamps.indices {
            guard let text = stamps[row].string, let time = Instant(text) ?? Instant(text + "Z") else {
                throw DatasetsError(
                    "bad-entities",
                    "'event_timestamp' has no RFC 3339 time in row \(row + 1) (line \(row + 2) of a CSV file): '\(stamps[row].string ?? stamps[row].text)'"
                )
            }
            let id = lists[DatasetBuild.idColumn]?[row].string ?? "row-\(row + 1)"
            guard isAsked(time), isSampled(id) else { continue }
            rows.add(id: id, time: time.milliseconds, place: .max)
            for name in plan.keyNames { rows.keys[name]?.append(DatasetBuild.value(lists[name]?[row] ?? .null).label) }
            for name in others { try rows.add(name, DatasetBuild.value(lists[name]?[row] ?? .null), isInteger: false) }
        }
        return rows
    }

    private static func value(_ json: JSON) -> CELValue {
        switch json {
        case .string(let text): .string(text)
        case .bool(let flag): .bool(flag)
        case .int(let number): .int(number)
        case .double(let number): .double(number)
        default: .null
        }
    }
}
