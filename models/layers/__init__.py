"""Layer adapters: what there is to know about one kind of layer, one file each."""
