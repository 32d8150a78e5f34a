import Headrace

await Headrace.main()
