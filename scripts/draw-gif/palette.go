package main

import (
	"image"
	"image/color"
	"sort"
)

// choosePalette picks 255 colours by median cut over every frame, and keeps
// index 0 for "transparent".
func choosePalette(pictures []*canvas) color.Palette {
	count := map[[3]uint8]int{}
	for _, picture := range pictures {
		for y := 0; y < height; y += 2 {
			for x := 0; x < width; x += 2 {
				c := toColor(picture.at(x, y))
				count[[3]uint8{c.R >> 1, c.G >> 1, c.B >> 1}]++
			}
		}
	}
	all := make([]weighted, 0, len(count))
	for c, n := range count {
		// Few pixels of a vivid colour matter as much as many of the ground.
		all = append(all, weighted{[3]int{int(c[0]) * 2, int(c[1]) * 2, int(c[2]) * 2}, root(n)})
	}
	sort.Slice(all, func(i, j int) bool { return less(all[i].c, all[j].c) })

	boxes := [][]weighted{all}
	for len(boxes) < 255 {
		best, bestScore, bestAxis := -1, 0, 0
		for i, box := range boxes {
			if len(box) < 2 {
				continue
			}
			axis, span := widest(box)
			weight := 0
			for _, w := range box {
				weight += w.n
			}
			if score := span * span * root(weight); score > bestScore {
				best, bestScore, bestAxis = i, score, axis
			}
		}
		if best < 0 {
			break
		}
		low, high := split(boxes[best], bestAxis)
		boxes[best] = low
		boxes = append(boxes, high)
	}
	palette := color.Palette{color.RGBA{}}
	for _, box := range boxes {
		palette = append(palette, mean(box))
	}
	return palette
}

type weighted struct {
	c [3]int
	n int
}

func less(a, b [3]int) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

func root(n int) int {
	r := 1
	for r*r < n {
		r++
	}
	return r
}

func widest(box []weighted) (axis, span int) {
	for i := range 3 {
		low, high := 255, 0
		for _, w := range box {
			low, high = min(low, w.c[i]), max(high, w.c[i])
		}
		if high-low > span {
			axis, span = i, high-low
		}
	}
	return axis, span
}

func split(box []weighted, axis int) (low, high []weighted) {
	sort.SliceStable(box, func(i, j int) bool { return box[i].c[axis] < box[j].c[axis] })
	total := 0
	for _, w := range box {
		total += w.n
	}
	half, at := 0, 0
	for at = 0; at < len(box)-1; at++ {
		if half += box[at].n; 2*half >= total {
			break
		}
	}
	at = max(1, min(at+1, len(box)-1))
	return box[:at:at], box[at:]
}

func mean(box []weighted) color.RGBA {
	var sum [3]int
	total := 0
	for _, w := range box {
		total += w.n
		for i := range sum {
			sum[i] += w.c[i] * w.n
		}
	}
	return color.RGBA{uint8(sum[0] / total), uint8(sum[1] / total), uint8(sum[2] / total), 255}
}

// An ordered pattern, so that what stands still stays the same in every frame.
var bayer = [4][4]float64{{0, 8, 2, 10}, {12, 4, 14, 6}, {3, 11, 1, 9}, {15, 7, 13, 5}}

const ditherDepth = 6.0 / 255

func dither(picture *canvas, palette color.Palette) *image.Paletted {
	out := image.NewPaletted(image.Rect(0, 0, width, height), palette)
	known := map[color.RGBA]uint8{}
	for y := range height {
		for x := range width {
			shift := (bayer[y%4][x%4]/15 - 0.5) * ditherDepth
			c := picture.at(x, y)
			want := toColor(rgb{c.r + shift, c.g + shift, c.b + shift})
			index, ok := known[want]
			if !ok {
				index = uint8(palette[1:].Index(want) + 1)
				known[want] = index
			}
			out.SetColorIndex(x, y, index)
		}
	}
	return out
}
