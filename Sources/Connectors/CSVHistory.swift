import Base
import RecordFormat

/// How the rows of CSV files become events: columns with types, derived columns, and per kind of event a condition and
/// expressions for time, id, key and data, all in CEL.
final class CSVHistory {
    enum ColumnType: String { case string, int, double, timestamp }

    struct Table {
        let name: String
        let table: CSVTable
        /// Field index and type of each slot that is read from the file.
        let columns: [(field: Int, type: ColumnType)]
        /// Derived slots after the columns, in order.
        let derived: [CELProgram]
    }

    struct Kind {
        let name: String
        let table: Int
        let topic: String
        let type: String
        let when: CELProgram?
        let time: CELProgram
        let id: CELProgram
        let key: CELProgram
        let data: CELProgram
    }

    /// One event to come, before it is written out.
    struct Planned {
        let time: Int64
        let kind: Int32
        let row: Int32
    }

    let tables: [Table]
    let kinds: [Kind]
    private let missing: [UInt8]
    private let source: String
    /// Rows that an expression cannot read, by table and number.
    private(set) var failedRows: [(table: Int, row: Int, reason: String)] = []
    private var writer = JSONWriter(capacity: 512)

    /// - Parameter headersOnly: compiles everything against the columns that the files have, and reads no row.
    init(_ configuration: ConnectorConfiguration, headersOnly: Bool = false) throws {
        missing = [UInt8]((configuration.values["missing"] ?? "").utf8)
        source = "headrace:/connectors/\(configuration.name)"
        let directory = try configuration.string("directory")
        var tables: [Table] = []
        var variables: [[String]] = []
        for name in try configuration.list("tables") {
            let prefix = "tables.\(name)."
            let table = try CSVTable(
                path: directory + "/" + (try configuration.string(prefix + "file")), headerOnly: headersOnly)
            var names: [String] = []
            var columns: [(field: Int, type: ColumnType)] = []
            for item in try configuration.list(prefix + "columns") {
                let parts = item.split(separator: ":", maxSplits: 1).map(String.init)
                guard let type = ColumnType(rawValue: parts.count > 1 ? parts[1] : "string") else {
                    throw ConnectorsError(
                        "bad-connector",
                        "\(configuration.place): '\(item)' in '\(prefix)columns': there is no type '\(parts[1])'; known: string, int, double, timestamp"
                    )
                }
                guard let field = table.header.firstIndex(of: parts[0]) else {
                    throw ConnectorsError(
                        "bad-connector",
                        "\(configuration.place): '\(prefix)columns': the file \(try configuration.string(prefix + "file")) has no column '\(parts[0])'; it has \(table.header.joined(separator: ", "))"
                    )
                }
                names.append(parts[0])
                columns.append((field, type))
            }
            var derived: [CELProgram] = []
            if configuration.values[prefix + "let"] != nil {
                for item in try configuration.list(prefix + "let") {
                    derived.append(try Self.program(configuration, prefix + "let." + item, names))
                    names.append(item)
                }
            }
            tables.append(Table(name: name, table: table, columns: columns, derived: derived))
            variables.append(names)
        }
        self.tables = tables
        kinds = try configuration.list("events").map { name in
            let prefix = "events.\(name)."
            let tableName = try configuration.string(prefix + "table")
            guard let table = tables.firstIndex(where: { $0.name == tableName }) else {
                throw ConnectorsError("bad-connector", "\(configuration.place): '\(prefix)table' names no table")
            }
            let names = variables[table]
            let when =
                configuration.values[prefix + "when"] == nil
                ? nil : try Self.program(configuration, prefix + "when", names)
            return Kind(
                name: name, table: table, topic: try configuration.string(prefix + "topic"),
                type: try configuration.string(prefix + "type"), when: when,
                time: try Self.program(configuration, prefix + "time", names),
                id: try Self.program(configuration, prefix + "id", names),
                key: try Self.program(configuration, prefix + "key", names),
                data: try Self.program(configuration, prefix + "data", names))
        }
    }

    private static func program(_ configuration: ConnectorConfiguration, _ key: String, _ names: [String]) throws
        -> CELProgram
    {
        let source = try configuration.string(key)
        do {
            return try CELProgram(source, variables: names)
        } catch {
            throw ConnectorsError("bad-connector", "\(configuration.place): '\(key)': \(error.message)")
        }
    }

    /// Puts the row's columns and derived columns into the slots.
    private func bind(_ number: Int, _ row: Int, _ scope: inout CELContext) throws(BaseError) {
        let table = tables[number]
        let fields = CSVTable.fields(table.table.bytes, table.table.rows[row])
        scope.slots.removeAll(keepingCapacity: true)
        for column in table.columns { scope.slots.append(try value(table.table, fields[column.field], column.type)) }
        for program in table.derived { scope.slots.append(try program.evaluate(&scope)) }
    }

    private func value(_ table: CSVTable, _ field: Range<Int>, _ type: ColumnType) throws(BaseError) -> CELValue {
        if field.count == missing.count, table.bytes[field].elementsEqual(missing) { return .null }
        func unreadable() -> BaseError {
            BaseError("bad-field", "'\(CSVTable.text(table.bytes, field))' is no \(type.rawValue)")
        }
        switch type {
        case .string: return .string(CSVTable.text(table.bytes, field))
        case .int, .double:
            let number = table.bytes.withUnsafeBufferPointer { raw -> CELValue? in
                let text = UnsafeBufferPointer(rebasing: raw[field])
                guard !text.isEmpty else { return nil }
                if type == .int { return JSONNumber.integer(text).map { .int($0) } }
                return JSONNumber.double(text).map { .double($0) }
            }
            guard let number else { throw unreadable() }
            return number
        case .timestamp:
            let moment = table.bytes.withRaw { Instant.parse(UnsafeRawBufferPointer(rebasing: $0[field])) }
            guard let moment else { throw unreadable() }
            return .instant(moment)
        }
    }

    /// Every event in (time, kind, row) order. A row that an expression cannot read is counted, and gives no event.
    func plan() -> [Planned] {
        var planned: [Planned] = []
        var scope = CELContext()
        for (number, table) in tables.enumerated() {
            let own = kinds.indices.filter { kinds[$0].table == number }
            for row in table.table.rows.indices {
                do {
                    var events: [Planned] = []
                    try bind(number, row, &scope)
                    for kind in own {
                        if let when = kinds[kind].when, !(try when.bool(&scope)) { continue }
                        let time = try kinds[kind].time.instant(&scope).milliseconds
                        events.append(Planned(time: time, kind: Int32(kind), row: Int32(row)))
                    }
                    // All kinds of a row or none: a row that is reported gives no event.
                    planned += events
                } catch {
                    failedRows.append((number, row, error.message))
                }
            }
        }
        planned.sort { ($0.time, $0.kind, $0.row) < ($1.time, $1.kind, $1.row) }
        return planned
    }

    /// Where an event's row stands in its file, and the row.
    func line(of planned: Planned) -> String { "line \(tables[table(of: planned)].table.lines[Int(planned.row)])" }
    func text(of planned: Planned) -> String { tables[table(of: planned)].table.text(ofRow: Int(planned.row)) }
    private func table(of planned: Planned) -> Int { kinds[Int(planned.kind)].table }

    private var scope = CELContext()

    func event(_ planned: Planned) throws(BaseError) -> (topic: String, event: NewEvent) {
        let kind = kinds[Int(planned.kind)]
        try bind(kind.table, Int(planned.row), &scope)
        writer.reset()
        try kind.data.evaluate(&scope).write(to: &writer)
        guard let id = try kind.id.label(&scope), let key = try kind.key.label(&scope) else {
            throw BaseError("bad-row", "\(line(of: planned)) of \(tables[kind.table].name) gives no id or key")
        }
        return (
            kind.topic,
            NewEvent(
                id: id, source: source, type: kind.type, time: Instant(milliseconds: planned.time),
                key: [UInt8](key.utf8),
                data: writer.bytes)
        )
    }
}
