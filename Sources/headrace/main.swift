import Base
import Foundation
import Node

var configuration = NodeConfiguration(dataDirectory: CommandLine.arguments[1], platformTopics: "Topics")
configuration.workspace = "Examples/flights"
configuration.connectors = ["Connectors/flights.json"]
if CommandLine.arguments.count > 2 { configuration.until = CommandLine.arguments[2] }
let node = try Node(configuration)
let begun = Date()
try node.start()
while !node.isSettled {
    Thread.sleep(forTimeInterval: 1)
    let s = node.fold.status
    print("\(Int(Date().timeIntervalSince(begun))) s \(node.connectors.map { "\($0.status.state) \($0.status.done)/\($0.status.total)" }) \(s.now) folded \(s.folded) emitted \(s.emitted) fail \(s.failures) late \(s.late) drained \(s.drained) \(node.failures)")
    if !node.failures.isEmpty { break }
}
print("settled after", Date().timeIntervalSince(begun), node.log.statistics.events)
node.stop()
