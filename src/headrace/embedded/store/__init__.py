"""The files of a store on disk: their connections, threads, schema, and the processes that share them."""
