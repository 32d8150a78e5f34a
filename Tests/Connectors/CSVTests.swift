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
            "at,name,value\r\n2013-01-02T00:00:00Z,b,2\n2013-01-01T00:00:00Z,\"a,\"\"x\"\"\",1\n2013-01-03T00:00:00Z,\"c\n2013-01-04T00:00:00Z,d,NA\nyesterday,e,5\n2013-01-05T00:00:00Z,f,-6\n2013-01-06T00:00:00Z,g,"
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
            #expect(status.damagedRows == 3, "one row is cut off, one names no time, one has no value")
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
            #expect(names.sorted() == ["01a,\"x\"", "02b", "04d"], "attempt \(attempt)")
            #expect(progress == 2)
            var reasons: [String] = []
            try log.forEachEvent(TopicPartition("headrace.dead-letters", 0)) { event in
                reasons.append(try JSON(parsing: event.data ?? [])["code"]?.string ?? "")
                return true
            }
            #expect(reasons.sorted() == ["bad-row", "bad-row", "bad-row", "schema-violation"])
        }
        let changed = try CSVHistorySource(
            try ConnectorConfiguration(
                [UInt8](config.replacingOccurrences(of: "'value': value", with: "'value': value, 'more': 1").utf8),
                place: "t.json"), log: log, gateway: gateway)
        changed.run()
        #expect(changed.status.state == "FAILED" && changed.status.trace?.contains("history-changed") == true)
        log.close()
    }
}
