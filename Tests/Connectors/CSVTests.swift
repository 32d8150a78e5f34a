import Base
import Catalog
import Connectors
import EventLog
import Foundation
import Gateway
import Privacy
import Testing

@Suite struct CSVTests {
    /// Rows that are cut off, unreadable or against the schema are counted and recorded; the others arrive in time order;
    /// a second run does nothing twice.
    @Test func damagedRowsAreReportedAndTheRestIsPlayed() throws {
        let scratch = try ScratchDirectory()
        let csv =
            "\u{FEFF}at,name,value\r\n2013-01-02T00:00:00Z,b,2\n2013-01-01T00:00:00Z,\"a,\"\"x\"\"\",1\n2013-01-03T00:00:00Z,\"c\n2013-01-04T00:00:00Z,d,NA\nyesterday,e,5\n2013-01-05T00:00:00Z,f,-6\n2013-01-06T00:00:00Z,g,\n2013-01-07T00:00:00Z,h\"\"i,8\n2013-01-08T00:00:00Z,\"j\"k,9\n2013-01-09T00:00:00Z,l,10"
        try Data(csv.utf8).write(to: URL(filePath: scratch.path + "/t.csv"))
        let config = """
            {"name":"t","config":{"connector.class":"CsvHistorySource","directory":"\(scratch.path)","missing":"NA","tables":"t","tables.t.file":"t.csv",
            "tables.t.columns":"at:timestamp,name:string,value:int","events":"e","events.e.table":"t","events.e.topic":"t","events.e.type":"t",
            "events.e.time":"at","events.e.id":"name","events.e.key":"name","events.e.data":"{'name': name, 'value': value}"}}
            """
        let log = try EmbeddedLog.open(scratch.path + "/log")
        let gateway = Gateway(
            log: log, keys: try KeyStore(DiskVolume(scratch.path + "/keys")),
            clock: { Instant(milliseconds: 2_000_000_000_000) })
        func declare(_ text: String) throws {
            for definition in try Workspace.parse(text, file: "t") {
                try gateway.declare(try TopicDefinition(definition), reserved: false)
            }
        }
        try declare(
            "kind: Topic\nname: t\npartitions: 2\nschema: {properties: {value: {type: [number, \"null\"], minimum: 0}}}\n---\nkind: Topic\nname: headrace.dead-letters\n---\nkind: Topic\nname: connect.offsets"
        )
        for attempt in 0..<2 {
            let source = try CSVHistorySource(
                try ConnectorConfiguration([UInt8](config.utf8), place: "t.json"), log: log, gateway: gateway)
            source.run()
            let status = source.status
            #expect(status.state == "FINISHED", "\(status.trace ?? "")")
            #expect(
                status.damagedRows == 5,
                "one row is cut off, one names no time, one has no value, two have quotes astray")
            var names: [String] = []
            var progress = 0
            for partition in 0..<2 {
                try log.forEachEvent(TopicPartition("t", partition)) { event in
                    if event.isProgress {
                        progress += 1
                    } else {
                        names.append("\(event.time.date.suffix(2))\(event.id)")
                    }
                    return true
                }
            }
            #expect(names.sorted() == ["01a,\"x\"", "02b", "04d", "09l"], "attempt \(attempt)")
            #expect(progress == 2)
            var letters: [String] = []
            try log.forEachEvent(TopicPartition("headrace.dead-letters", 0)) { event in
                let letter = try JSON(parsing: event.data ?? [])
                letters.append(
                    ["code", "place", "raw"].map { letter[$0]?.string ?? "" }.joined(separator: "|")
                        .trimmingCharacters(in: .whitespacesAndNewlines))
                return true
            }
            #expect(
                letters.sorted() == [
                    "bad-row|line 10|2013-01-08T00:00:00Z,\"j\"k,9", "bad-row|line 4|2013-01-03T00:00:00Z,\"c",
                    "bad-row|line 6|yesterday,e,5", "bad-row|line 8|2013-01-06T00:00:00Z,g,",
                    "bad-row|line 9|2013-01-07T00:00:00Z,h\"\"i,8", "schema-violation||{\"name\":\"f\",\"value\":-6}",
                ])
        }
        // Progress is the connector's own to write: rows cannot pretend it.
        let forged = try CSVHistorySource(
            try ConnectorConfiguration(
                [UInt8](
                    config.replacingOccurrences(of: #""name":"t","config""#, with: #""name":"u","config""#)
                        .replacingOccurrences(of: #""events.e.type":"t""#, with: #""events.e.type":"source.progress""#)
                        .utf8), place: "u.json"), log: log, gateway: gateway)
        forged.run()
        #expect(forged.status.state == "FINISHED" && forged.status.refused == 5, "\(forged.status)")
        let changed = try CSVHistorySource(
            try ConnectorConfiguration(
                [UInt8](config.replacingOccurrences(of: "'value': value", with: "'value': value, 'more': 1").utf8),
                place: "t.json"), log: log, gateway: gateway)
        changed.run()
        #expect(changed.status.state == "FAILED" && changed.status.trace?.contains("history-changed") == true)
        log.close()
    }
}
