import Base
import Foundation

/// A CSV file (RFC 4180) in memory with the place of every row; rows whose fields cannot be told apart are kept aside.
package final class CSVTable: Sendable {
    /// A row that cannot be used.
    package struct Damage: Sendable {
        package let line: Int
        package let text: String
        package let reason: String
    }

    /// Bytes of a damaged row that are kept.
    private static let textLimit = 4096

    let bytes: [UInt8]
    let header: [String]
    let rows: [Range<Int>]
    /// The line, counted from 1, in which each row begins.
    let lines: [Int32]
    /// Rows that are cut off, have too many fields, or a quote without its partner.
    package let damaged: [Damage]

    /// Bytes in which the first row must end.
    private static let headerLimit = 1 << 20

    /// - Parameter headerOnly: reads the names of the columns and no row.
    package convenience init(path: String, headerOnly: Bool = false) throws(ConnectorsError) {
        do {
            let file = try FileHandle(forReadingFrom: URL(filePath: path))
            defer { try? file.close() }
            let data = headerOnly ? try file.read(upToCount: CSVTable.headerLimit) : try file.readToEnd()
            var bytes = [UInt8](data ?? Data())
            if headerOnly, let row = CSVTable.row(bytes, from: 0) { bytes.removeLast(bytes.count - row.upperBound) }
            try self.init(bytes: bytes, name: path)
        } catch let error as ConnectorsError {
            throw error
        } catch {
            throw ConnectorsError(
                "no-file", "the file '\(path)' cannot be read", cause: error, fault: .world)
        }
    }

    package init(bytes: [UInt8], name: String) throws(ConnectorsError) {
        self.bytes = bytes
        // Spreadsheets put a byte order mark before the first name.
        let mark = bytes.starts(with: [0xEF, 0xBB, 0xBF]) ? 3 : 0
        guard let first = CSVTable.row(bytes, from: mark) else {
            throw ConnectorsError("empty-file", "the file '\(name)' is empty")
        }
        header = CSVTable.fields(bytes, first).map { CSVTable.text(bytes, $0) }
        var rows: [Range<Int>] = []
        var lines: [Int32] = []
        var damaged: [Damage] = []
        var start = first.upperBound + 1
        var line = 2
        while let row = CSVTable.row(bytes, from: start) {
            var end = row.upperBound
            if !(row.isEmpty || (row.count == 1 && bytes[row.lowerBound] == 0x0D)) {
                if let reason = CSVTable.damage(bytes, row, width: header.count) {
                    // A quote without its partner must not swallow the rows behind it: only its own line is damaged.
                    end = bytes[row].firstIndex(of: 0x0A) ?? end
                    let text = String(decoding: bytes[row.lowerBound..<end].prefix(CSVTable.textLimit), as: UTF8.self)
                    damaged.append(Damage(line: line, text: text, reason: reason))
                } else {
                    rows.append(row)
                    lines.append(Int32(clamping: line))
                }
            }
            line += 1 + bytes[row.lowerBound..<end].reduce(0) { $0 + ($1 == 0x0A ? 1 : 0) }
            start = end + 1
        }
        self.rows = rows
        self.lines = lines
        self.damaged = damaged
    }

    /// The texts of every column, by row.
    package var columns: [(name: String, texts: [String])] {
        var columns = header.map { (name: $0, texts: [String]()) }
        for row in rows {
            for (index, field) in CSVTable.fields(bytes, row).enumerated() where index < columns.count {
                columns[index].texts.append(CSVTable.text(bytes, field))
            }
        }
        return columns
    }

    /// The row as it stands in the file, as much of it as is kept.
    func text(ofRow number: Int) -> String {
        String(decoding: bytes[rows[number]].prefix(CSVTable.textLimit), as: UTF8.self)
    }

    /// Why a row cannot be told apart into so many fields; nil when it can.
    private static func damage(_ bytes: [UInt8], _ row: Range<Int>, width: Int) -> String? {
        let fields = fields(bytes, row)
        guard fields.allSatisfy({ isWhole(bytes, $0) }) else {
            return "a quote has no partner, or stands inside a field that is not quoted"
        }
        return fields.count == width ? nil : "the row has \(fields.count) fields, not \(width)"
    }

    /// True for a field without quotes, and for one that is quoted as RFC 4180 wants it: around all of it, those inside
    /// doubled.
    private static func isWhole(_ bytes: [UInt8], _ field: Range<Int>) -> Bool {
        bytes.withUnsafeBufferPointer { raw in
            guard let first = field.first, raw[first] == 0x22 else { return !raw[field].contains(0x22) }
            var index = first + 1
            while index < field.upperBound {
                if raw[index] == 0x22 {
                    if index == field.upperBound - 1 { return true }
                    guard raw[index + 1] == 0x22, index + 1 < field.upperBound - 1 else { return false }
                    index += 1
                }
                index += 1
            }
            return false
        }
    }

    /// The row that begins there, to the next line end outside quotes; nil at the end of the file.
    private static func row(_ bytes: [UInt8], from start: Int) -> Range<Int>? {
        guard start < bytes.count else { return nil }
        return bytes.withUnsafeBufferPointer { raw in
            var quoted = false
            var index = start
            while index < raw.count {
                if raw[index] == 0x22 { quoted.toggle() }
                if raw[index] == 0x0A, !quoted { break }
                index += 1
            }
            return start..<index
        }
    }

    static func fields(_ bytes: [UInt8], _ row: Range<Int>) -> [Range<Int>] {
        var result: [Range<Int>] = []
        var start = row.lowerBound
        var end = row.upperBound
        if end > start, bytes[end - 1] == 0x0D { end -= 1 }
        var quoted = false
        bytes.withUnsafeBufferPointer { raw in
            for index in start..<end {
                if raw[index] == 0x22 { quoted.toggle() }
                guard raw[index] == 0x2C, !quoted else { continue }
                result.append(start..<index)
                start = index + 1
            }
        }
        result.append(start..<end)
        return result
    }

    static func text(_ bytes: [UInt8], _ field: Range<Int>) -> String {
        guard field.count >= 2, bytes[field.lowerBound] == 0x22 else {
            return String(decoding: bytes[field], as: UTF8.self)
        }
        let inner = String(decoding: bytes[field.lowerBound + 1..<field.upperBound - 1], as: UTF8.self)
        return inner.replacingOccurrences(of: "\"\"", with: "\"")
    }
}
