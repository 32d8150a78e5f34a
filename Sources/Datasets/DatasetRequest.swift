import Base

/// What is asked for when a dataset of rows is made.
package struct DatasetRequest: Sendable {
    package let name: String
    /// A feature service, or features by name (`VIEW:FEATURE`, `VIEW`).
    package let service: String?
    package let features: [String]
    /// The topic whose events are the rows; nil when rows are given.
    package let labels: String?
    /// Rows of another source: keys by their names, and `event_timestamp`; other columns come along.
    package let entities: JSON?
    /// Rows from this time on, and before that one.
    package let from: Instant?
    package let to: Instant?
    /// Members of a label event's data that become columns; nil for all that are no lists or objects.
    package let fields: [String]?
    /// Only event time counts, not what was known.
    package let isEventTimeOnly: Bool
    /// The share of rows that is taken, by a hash of their id.
    package let sample: Double?
    package let split: DatasetSplit?
    package let seed: UInt64
    package let json: JSON

    /// Rows of a version.
    package static let rowLimit = 20_000_000
    /// Columns that come of the labels.
    package static let columnLimit = 2000
    /// Rows that may be given along.
    package static let entityLimit = 1_000_000
    private static let known: Set<String> = [
        "name", "service", "features", "labels", "entities", "from", "to", "fields", "eventTimeOnly", "sample", "split",
        "seed",
    ]

    package init(_ json: JSON) throws(DatasetsError) {
        func bad(_ message: String) -> DatasetsError { DatasetsError("bad-request", message) }
        guard let members = json.object else { throw bad("a dataset is asked for with an object") }
        if let unknown = members.keys.filter({ !DatasetRequest.known.contains($0) }).min() {
            throw bad("'\(unknown)' is unknown; known are \(DatasetRequest.known.sorted().joined(separator: ", "))")
        }
        func text(_ key: String) throws(DatasetsError) -> String? {
            guard let value = members[key], value != .null else { return nil }
            guard let text = value.string, !text.isEmpty else { throw bad("'\(key)' must be a text") }
            return text
        }
        func moment(_ key: String) throws(DatasetsError) -> Instant? {
            guard let text = try text(key) else { return nil }
            guard let moment = Instant(text) else { throw bad("'\(key)' must be an RFC 3339 time, not '\(text)'") }
            return moment
        }
        func texts(_ key: String) throws(DatasetsError) -> [String]? {
            guard let value = members[key], value != .null else { return nil }
            guard let list = value.array, list.allSatisfy({ $0.string != nil }) else {
                throw bad("'\(key)' must be a list of texts")
            }
            return list.compactMap(\.string)
        }
        name = try DatasetRequest.checked(try text("name") ?? "")
        service = try text("service")
        features = try texts("features") ?? []
        labels = try text("labels")
        entities = members["entities"] == .null ? nil : members["entities"]
        guard (labels == nil) != (entities == nil) else {
            throw bad("give either 'labels' (a topic whose events are the rows) or 'entities' (the rows themselves)")
        }
        from = try moment("from")
        to = try moment("to")
        if let from, let to, from >= to { throw bad("'from' must lie before 'to'") }
        fields = try texts("fields")
        isEventTimeOnly = members["eventTimeOnly"]?.bool == true
        if let value = members["sample"], value != .null {
            guard let share = value.double, share > 0, share <= 1 else {
                throw bad("'sample' is a share above 0 up to 1")
            }
            sample = share
        } else {
            sample = nil
        }
        split = try text("split").map { (text) throws(DatasetsError) in try DatasetSplit(text) }
        seed = UInt64(max(0, members["seed"]?.int ?? 0))
        // Given rows are kept by their digest: the manifest says which they were, the dataset what was in them.
        var kept = members.filter { $0.value != .null }
        if let entities { kept["entities"] = .string(Digest.of(entities.canonical).hex) }
        self.json = .object(kept)
    }

    /// A name that can stand before `@VERSION` and in a path.
    package static func checked(_ name: String) throws(DatasetsError) -> String {
        let isGood =
            !name.isEmpty && name.utf8.count <= 100
            && name.utf8.allSatisfy {
                ($0 >= 0x61 && $0 <= 0x7A) || ($0 >= 0x41 && $0 <= 0x5A) || ($0 >= 0x30 && $0 <= 0x39)
                    || [0x2D, 0x5F, 0x2E].contains($0)
            }
        guard isGood else {
            throw DatasetsError(
                "bad-name", "a dataset's name has letters, digits and - _ . and up to 100 of them, not '\(name)'")
        }
        return name
    }
}

/// Columns that are filled row by row, of the types that the values turn out to have.
package struct ColumnBuilder {
    private enum Kind: UInt8 { case missing, number, text, flag }

    package let name: String
    /// Numbers are whole by declaration.
    private let isInteger: Bool
    private var kinds: [Kind] = []
    /// Of flags, 0 and 1.
    private var numbers: [Double] = []
    /// As far as there are any.
    private var texts: [String] = []
    private var flagCount = 0
    private var numberCount = 0
    /// Whole numbers that a double does not hold.
    private var exact: [Int: Int64] = [:]

    package init(name: String, isInteger: Bool, rows: Int) {
        (self.name, self.isInteger) = (name, isInteger)
        fill(rows)
    }

    /// So many missing values.
    package mutating func fill(_ count: Int) {
        guard kinds.count < count else { return }
        numbers += Array(repeating: 0, count: count - numbers.count)
        kinds += Array(repeating: .missing, count: count - kinds.count)
    }

    /// Takes the value of a row; false when it has one already.
    package mutating func add(_ value: CELValue, at row: Int) -> Bool {
        fill(row)
        guard kinds.count == row else { return false }
        switch value {
        case .double(let number): take(.number, number)
        case .int(let number):
            take(.number, Double(number))
            if Int64(exactly: Double(number)) != number { exact[row] = number }
        case .string(let text):
            take(.text, 0)
            if texts.count < row { texts += Array(repeating: "", count: row - texts.count) }
            texts.append(text)
        case .bool(let flag): take(.flag, flag ? 1 : 0)
        default: take(.missing, 0)
        }
        return true
    }

    private mutating func take(_ kind: Kind, _ number: Double) {
        kinds.append(kind)
        numbers.append(number)
        numberCount += kind == .number ? 1 : 0
        flagCount += kind == .flag ? 1 : 0
    }

    /// A column of one type; where several stand, all of them as texts.
    package var column: DatasetColumn {
        let missing = kinds.map { $0 == .missing }
        if texts.isEmpty, flagCount == 0 {
            // Ids of more digits than a double holds are whole numbers, declared or not.
            let isWhole =
                (isInteger || !exact.isEmpty)
                && numbers.indices.allSatisfy { exact[$0] != nil || Int64(exactly: numbers[$0]) != nil }
            return DatasetColumn(
                name: name,
                values: isWhole
                    ? .integers(numbers.indices.map { exact[$0] ?? Int64(exactly: numbers[$0]) ?? 0 })
                    : .doubles(numbers), missing: missing)
        }
        if texts.isEmpty, numberCount == 0 {
            return DatasetColumn(name: name, values: .flags(numbers.map { $0 == 1 }), missing: missing)
        }
        let texts = kinds.indices.map { row in
            switch kinds[row] {
            case .missing: ""
            case .text: self.texts[row]
            case .flag: numbers[row] == 1 ? "true" : "false"
            case .number: exact[row].map { String($0) } ?? CELValue.double(numbers[row]).label ?? ""
            }
        }
        return DatasetColumn(name: name, values: .texts(texts), missing: missing)
    }
}
